"""Single-process stores with documents beside ours: `python -m benchmarks.embedded`."""
