"""What finds the key that a keyset is encrypted under, one wrapper a file."""
