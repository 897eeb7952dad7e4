"""Benchmarks, their data and the scripts that made it. Not part of the installed package."""
