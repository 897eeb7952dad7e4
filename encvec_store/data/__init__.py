"""Plaintext values and their rules: records, fields, filters, metrics, precision."""
