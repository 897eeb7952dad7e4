"""A record store that writes down what is read of it, as a server that watches could."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from encvec_store import store as stores


class Records:
    """The records of a collection, and a log of every call: (method, rows or other arguments)."""

    def __init__(self, records, log):
        self.__dict__.update(records=records, log=log)

    def __getattr__(self, name):
        found = getattr(self.records, name)
        if not callable(found) or name.startswith("_"):
            return found

        def called(*given, **how):
            self.log.append((name, *map(_plain, given), *map(_plain, how.values())))
            return found(*given, **how)

        return called

    def __setattr__(self, name, value):
        setattr(self.records, name, value)


class Store:
    def __init__(self, store, log):
        self.store, self.log = store, log

    def __getattr__(self, name):
        return getattr(self.store, name)

    def open(self, tenant, name):
        found = self.store.open(tenant, name)
        return None if found is None else Records(found, self.log)

    def create(self, spec, config):
        return Records(self.store.create(spec, config), self.log)


def watch(monkeypatch):
    """Have stores that are opened from now on watched. Returns the log."""
    log, connect = [], stores.open_connection

    def opened(*given, **how):
        connection = connect(*given, **how)

        def index(records):
            try:
                return connection.index(records)
            except TypeError:  # pgvector's works on its own records, and reads nothing of sealed collections
                return connection.index(records.records)

        return replace(connection, store=Store(connection.store, log), index=index)

    monkeypatch.setattr(stores, "open_connection", opened)
    return log


def rows_read(log):
    """Return the rows of each read of sealed parts, in the order asked."""
    return [list(given[0]) for name, *given in log if name in ("current", "vectors", "payloads") and len(given[0])]


def _plain(value):
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value
