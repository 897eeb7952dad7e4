"""How a store is opened by the contract, and what its tests share."""

from encvec_store.crypto import profile as profiles

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
        self.keyset = keyset

    def connect(self, keyset=None):
        """Open the data once more, as another process would."""
        raise NotImplementedError

    def reopen(self, store, keyset=None):
        """Close and open again."""
        raise NotImplementedError

    def collections(self, store, tenants):
        """List all collections, which are of these tenants."""
        return store.collections()

    def burglar(self, name="things", tenant=""):
        """Return a `tampering.Burglar` that reads and writes what is stored of a collection."""
        raise NotImplementedError
