"""pgvector ranks on the server: an index over the records of a `postgresql:` store; imports storage.postgres."""
