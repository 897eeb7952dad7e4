"""A client for VectorDBBench: copy this folder there as vectordb_bench/backend/clients/encvec_store."""
