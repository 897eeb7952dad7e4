"""The folder that goes into ann-benchmarks as ann_benchmarks/algorithms/encvec_store."""
