"""From plaintext records to what is stored, and back: settings, keys of a collection, the record codec."""
