"""The contract of a store: every backend subclasses it and says only how it is opened."""

import pytest

import encvec_store as ev
from tests.stores.contract.calibration import CalibrationContract
from tests.stores.contract.collections import CollectionContract
from tests.stores.contract.keys import KeyContract
from tests.stores.contract.opened import DIM, EVERYTHING, POLICIES, QUIET, Opened, hasten
from tests.stores.contract.openings import OpeningsContract
from tests.stores.contract.picking import PickingContract
from tests.stores.contract.records import RecordContract
from tests.stores.contract.search import SearchContract
from tests.stores.contract.updating import UpdateContract

__all__ = [
    "DIM",
    "EVERYTHING",
    "QUIET",
    "Fixtures",
    "Opened",
    "SameSchemeContract",
    "SealedFixtures",
    "StoreContract",
    "hasten",
    "scheme_of",
]


class Fixtures:
    """What the parts of the contract ask for, with every scheme and policy."""

    @pytest.fixture
    def keyset(self):
        return ev.Keyset.create("memory:")

    @pytest.fixture
    def place(self, keyset, tmp_path):
        """Return the `Opened` of this backend."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, place):
        store = place.connect()
        yield store
        store.close()

    @pytest.fixture(params=["sap", "sealed", "cells"])
    def scheme(self, request, monkeypatch):
        """Return what `collection` takes: a sketch without cells is tested by `MovingContract` and `RefitContract`."""
        return scheme_of(request.param, monkeypatch)

    @pytest.fixture(params=POLICIES, ids=["none", "sealed", "blind", "plain", "mixed"])
    def policies(self, request):
        return request.param

    @pytest.fixture
    def make(self, store, scheme):
        def make(name="things", dim=DIM, **given):
            return store.collection(name, dim=dim, **{"scheme": scheme, "oversample": EVERYTHING, **given})

        return make


class StoreContract(
    SearchContract,
    RecordContract,
    UpdateContract,
    PickingContract,
    CollectionContract,
    KeyContract,
    CalibrationContract,
    OpeningsContract,
    Fixtures,
):
    """What every store does, with every scheme."""


class SameSchemeContract(StoreContract):
    """The contract of a store that keeps it already, on another way there: with the scheme of most parts.

    A sketch in cells has index vectors in several partitions, and a profile. Fields have every policy at once.
    """

    @pytest.fixture
    def scheme(self, monkeypatch):
        return scheme_of("cells", monkeypatch)

    @pytest.fixture
    def policies(self):
        return POLICIES[-1]


class SealedFixtures(Fixtures):
    """The same for the scheme of fewest parts, whose searches are another way through the store."""

    @pytest.fixture
    def scheme(self):
        return "sealed"

    @pytest.fixture
    def policies(self):
        return POLICIES[-1]


def scheme_of(name, monkeypatch):
    if name in ("sketch", "cells"):
        hasten(monkeypatch)
    return {"sap": QUIET, "cells": {"name": "sketch", "cells": 3}}.get(name, name)
