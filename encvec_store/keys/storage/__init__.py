"""Where keysets lie, one storage a file: bytes in, bytes out, no cryptography."""
