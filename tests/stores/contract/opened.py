"""How a store is opened by the contract, and what its tests share."""

import contextlib

from encvec_store.schemes import profile as profiles

DIM = 8
QUIET = {"name": "sap", "beta": 1.0}
EVERYTHING = 1000  # oversample: every record is a candidate, so that answers are exact whatever the noise
FIELDS = ("n", "word", "odd", "rare", "absent")
POLICIES = [
    None,
    dict.fromkeys(FIELDS, "sealed"),
    dict.fromkeys(FIELDS, "blind"),
    dict.fromkeys(FIELDS, "plain"),
    {"n": "plain", "word": "blind", "odd": "plain", "*": "sealed"},
]


def hasten(monkeypatch):
    """Let a sketch be fitted on a few records, and in few dimensions: nearly every test crosses the threshold."""
    monkeypatch.setattr(profiles, "LEAST_RECORDS", 12)
    monkeypatch.setattr(profiles, "PER_DIMENSION", 2)
    monkeypatch.setattr(profiles, "LEAST_DIMENSIONS", 2)


class Opened:
    """A store's data and the ways to it."""

    def __init__(self, keyset):
        self.keyset, self.opened = keyset, []

    def open(self, keyset):
        """Return a store over the data."""
        raise NotImplementedError

    def another(self):
        """Return another, empty store under the same keyset."""
        raise NotImplementedError

    def connect(self, keyset=None):
        """Open the data once more, as another process would."""
        self.opened.append(self.open(keyset or self.keyset))
        return self.opened[-1]

    def reopen(self, store, keyset=None):
        """Close and open again."""
        store.close()
        return self.connect(keyset)

    @contextlib.contextmanager
    def another_opening(self):
        """Yield the data opened once more, and close that opening alone."""
        with self.connect() as store:
            yield store

    def close(self):
        """Close whatever was opened."""
        for store in self.opened:
            store.close()

    def collections(self, store, tenants):
        """List all collections, which are of these tenants."""
        return store.collections()

    def burglar(self, name="things", tenant=""):
        """Return a `tampering.Burglar` that reads and writes what is stored of a collection."""
        raise NotImplementedError
