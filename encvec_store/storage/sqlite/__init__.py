"""Records in a SQLite file; imports storage.protocol."""
