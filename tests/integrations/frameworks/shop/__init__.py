"""A Django app with encrypted vectors, for the tests of the field."""
