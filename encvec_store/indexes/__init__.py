"""Vector indexes over ciphertext: each can be made again from the records of a store."""
