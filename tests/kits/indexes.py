"""Where records lie and how an index is made over them, for tests."""

from contextlib import ExitStack, closing, suppress

from encvec_store.errors import StoreError
from tests.kits.records import CONFIG, SPEC


class Place:
    """Opens stores, records and indexes, and closes them.

    Args:
        open_store: opens a record store, as another process would.
        make_index: makes an index over records of such a store.
    """

    def __init__(self, open_store, make_index):
        self._open_store, self._make_index = open_store, make_index
        self._stack = ExitStack()
        self._first = None

    def store(self):
        return self._stack.enter_context(closing(self._open_store()))

    def records(self, spec=SPEC):
        """The records of a collection, made if need be; a new object, where the store gives one."""
        return self.store().create(spec, CONFIG)

    def index(self, records):
        index = self._make_index(records)
        self._stack.callback(self._closed, index)
        return index

    def clear(self):
        """Begin again without any collection."""
        store = self.store()
        for tenant, name in store.collections():
            store.drop(tenant, name)

    def close(self):
        self._stack.close()

    @staticmethod
    def _closed(index):
        with suppress(StoreError):  # a test may have closed the store
            index.close()
