"""Clients of this store for other projects' benchmarks: ann-benchmarks and VectorDBBench. See benchmarks/README.md."""
