"""Embedding models in plain torch, used once to make the files in ``benchmarks/data``."""
