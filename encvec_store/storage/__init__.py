"""Record stores of ciphertext: opaque tokens and sealed bytes, never a key; imports data, errors."""
