"""Keys, ciphers and index-vector schemes: everything that touches a secret."""
