"""The face experiment as a benchmark: an environment of its own, both data sets, and the results that were reached."""
