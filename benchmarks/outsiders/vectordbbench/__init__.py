"""A client for VectorDBBench: the folder goes there as vectordb_bench/backend/clients/encvec_store."""
