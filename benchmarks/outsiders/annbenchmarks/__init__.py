"""Copy this folder into ann-benchmarks as ann_benchmarks/algorithms/encvec_store."""
