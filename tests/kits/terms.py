"""Filter terms without keys."""

from encvec_store.data import Term


def readable_token(field, value):
    """Return the terms of a blind field, in place of keyed ones: a test can tell what they stand for."""
    return (Term("token", field.encode() + b"=" + value),)
