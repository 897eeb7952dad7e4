"""Known answers are made at the cost that keys really have."""

import pytest


@pytest.fixture(autouse=True)
def cheap_passphrases():
    """Leave the cost as it is."""
