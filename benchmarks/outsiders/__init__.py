"""Clients of this store for benchmarks that others keep: ann-benchmarks and VectorDBBench. See benchmarks/README.md."""
