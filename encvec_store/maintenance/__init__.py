"""Tasks on a whole collection: calibrate, fit, rewrite, verify, estimate recall."""
