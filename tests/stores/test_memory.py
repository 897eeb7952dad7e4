"""The contract, kept by the memory store."""

import contextlib

import numpy as np
import pytest

from encvec_store import Store
from encvec_store.data import Term
from encvec_store.indexes import open_connection
from encvec_store.storage import Blob
from tests.stores.contract import Opened, StoreContract, machine, scheme_of
from tests.stores.contract.celled import CelledContract
from tests.stores.contract.changing import ChangingContract
from tests.stores.contract.forgery import ForgeryContract
from tests.stores.contract.moving import MovingContract
from tests.stores.contract.precision import PrecisionContract
from tests.stores.contract.races import RacesContract
from tests.stores.contract.refit import RefitContract
from tests.stores.contract.replay import ReplayContract
from tests.stores.contract.tampering import Burglar, TamperingContract


class OpenedMemory(Opened):
    """Memory stores live in one object: another opening is another Store over it."""

    def __init__(self, keyset):
        super().__init__(keyset)
        self._connection = open_connection("memory:")

    def open(self, keyset):
        return Store(self._connection, keyset, maintenance="inline")

    def another(self):
        return type(self)(self.keyset)

    def reopen(self, store, keyset=None):
        return self.connect(keyset)  # what is closed is gone

    @contextlib.contextmanager
    def another_opening(self):
        yield self.connect()  # closed, it would take the data along

    def burglar(self, name="things", tenant=""):
        return MemoryBurglar(self._connection.store._collections[tenant, name])


class MemoryBurglar(Burglar):
    def __init__(self, collection):
        self.collection = collection

    def rows(self):
        return sorted(self.collection._held.rows)

    def read(self, row, part):
        value = getattr(self.collection._held.rows[row], part)
        if part == "terms":
            return {(name, *term) for name, terms in value.items() for term in terms}
        return value.tobytes() if isinstance(value, np.ndarray) else value

    def write(self, row, parts):
        held = self.collection._held.rows[row]
        for part, value in parts.items():
            if part == "token":
                del self.collection._held.tokens[held.token]
                self.collection._held.tokens[value] = row
            elif part == "terms":
                terms: dict[str, set[Term]] = {}
                for name, kind, term in value:
                    terms.setdefault(name, set()).add(Term(kind, term))
                value = terms
            elif part in ("vector", "index_vector"):
                value = np.frombuffer(value, getattr(held, part).dtype).copy()
            setattr(held, part, value)
        self.collection._note(set(), set())

    def remove(self, row):
        del self.collection._held.tokens[self.collection._held.rows.pop(row).token]
        self.collection._note(set(), {row})

    def move(self, row, other):
        held = self.collection._held.rows[row]
        self.remove(row)
        other.collection._held.rows[row] = held
        other.collection._held.tokens[held.token] = row
        other.collection._note({row}, set())

    def config(self):
        return self.collection._config

    def set_config(self, sealed):
        self.collection._config = sealed

    def profile(self):
        return self.collection._blobs["profile", 0].content

    def set_profile(self, sealed):
        self.collection._blobs = {} if sealed is None else {("profile", 0): Blob(1, sealed)}


class TestMemory(
    CelledContract,
    ChangingContract,
    ForgeryContract,
    MovingContract,
    PrecisionContract,
    RacesContract,
    RefitContract,
    ReplayContract,
    TamperingContract,
    StoreContract,
):
    @pytest.fixture(params=["sap", "sealed", "sketch", "cells"])
    def scheme(self, request, monkeypatch):
        return scheme_of(request.param, monkeypatch)

    @pytest.fixture
    def place(self, keyset):
        return OpenedMemory(keyset)

    def test_random_histories(self):
        machine.run(OpenedMemory, examples=80)
