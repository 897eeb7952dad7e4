"""The contract of `KeepsNames`: a part of that of record stores."""

import threading

import pytest

from encvec_store.errors import ConfigMismatchError
from encvec_store.storage.names import KeepsNames
from tests.kits.records import CONFIG, SPEC


class NamesContract:
    """What a store does that can keep names sealed. What is sealed is any bytes here."""

    def test_the_name_key(self, store, open_store):
        """There is one or none, and it is replaced by whoever knows it only."""
        assert isinstance(store, KeepsNames)
        assert store.name_key() is None
        assert store.keep_name_key(b"first") is True
        other = open_store()
        assert other.name_key() == b"first"
        assert other.keep_name_key(b"second") is False
        assert other.keep_name_key(b"second", b"unknown") is False
        assert other.keep_name_key(b"second", b"first") is True
        assert store.name_key() == b"second"
        assert store.collections(SPEC.tenant) == store.named(SPEC.tenant) == []

    def test_named(self, store):
        store.keep_name_key(b"key")
        made = store.create(SPEC, CONFIG, b"sealed name")
        assert made.blob("name") == b"sealed name"
        store.create(SPEC, CONFIG, b"another")  # it is there already
        place = SPEC.tenant, SPEC.name
        assert store.named(SPEC.tenant) == [(*place, b"sealed name")]
        assert store.named("nobody") == []
        assert store.collections(SPEC.tenant) == [place]
        made.keep(drop=["name"])
        assert store.named(SPEC.tenant) == [(*place, b"")]
        assert store.drop(*place) is True
        assert store.named(SPEC.tenant) == []

    def test_names_of_one_kind(self, store, open_store):
        """Neither kind comes into a store of the other, also if it was opened before there was a name key."""
        other = open_store()
        with pytest.raises(ConfigMismatchError, match="in clear since it was opened here: open it again"):
            store.create(SPEC, CONFIG, b"sealed name")
        assert store.collections(SPEC.tenant) == []
        store.create(SPEC, CONFIG)
        with pytest.raises(ConfigMismatchError, match="has collections, whose names are in clear"):
            other.keep_name_key(b"key")
        assert other.name_key() is None
        store.drop(SPEC.tenant, SPEC.name)
        assert other.keep_name_key(b"key") is True
        with pytest.raises(ConfigMismatchError, match="sealed since it was opened here"):
            store.create(SPEC, CONFIG)
        assert store.collections(SPEC.tenant) == []

    def test_two_at_once(self, open_store):
        """One begins to seal names, the other creates a collection in clear: one of them does, and the other fails."""
        stores = open_store(), open_store()
        start, failed = threading.Barrier(2), []

        def run(call):
            start.wait()
            try:
                call()
            except ConfigMismatchError as error:
                failed.append(error)

        calls = lambda: stores[0].keep_name_key(b"key"), lambda: stores[1].create(SPEC, CONFIG)
        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failed) == 1
        assert (stores[0].name_key() is None) == bool(stores[0].collections(SPEC.tenant))
