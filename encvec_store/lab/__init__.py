"""The laboratory: what ciphertexts give away (`leakage`), what they cost (`bench`), and pages that show both.

The store imports nothing of it.
"""
