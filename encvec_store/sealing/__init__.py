"""Turns plaintext records into stored bytes and back: settings, keyring, record codec."""
