"""Stops a write to a PostgreSQL store in its very middle, by a lock that it has to wait for, until it is let go."""

import contextlib
import threading

import psycopg

from tests.kits.faults.common import until
from tests.kits.faults.worker import dsn_of

# The table, and the lock on it that halts the task half done: with records written but not their terms, with new
# tables filled and indexed but not put in the old ones' place, with an index begun that is not valid yet.
TABLES = {
    "upsert": ("terms_1", "SHARE"),
    "delete": ("terms_1", "SHARE"),
    "calibrate": ("records", "SHARE UPDATE EXCLUSIVE"),
    "change": ("records", "SHARE UPDATE EXCLUSIVE"),
    "flush": ("records_1", "ROW EXCLUSIVE"),
}


@contextlib.contextmanager
def gate(url, task):
    """Hold what the task has to wait for; yields a function that waits until it does, and returns its backend's pid."""
    table, mode = TABLES[task]
    holder = psycopg.connect(dsn_of(url))
    try:
        holder.execute(f"LOCK TABLE encvec.{table} IN {mode} MODE")
        waiting = "SELECT pid FROM pg_stat_activity WHERE {ours} AND wait_event_type = 'Lock'"
        yield lambda: until(url, waiting)
    finally:
        with contextlib.suppress(psycopg.Error):  # the server may have been killed meanwhile
            holder.close()


class Running(threading.Thread):
    """A call on another thread; `error` is what it raised."""

    def __init__(self, call, *arguments):
        super().__init__(daemon=True)
        self._call, self._arguments, self.error = call, arguments, None
        self.start()

    def run(self):
        try:
            self._call(*self._arguments)
        except Exception as error:
            self.error = error

    def ended(self, seconds=30):
        self.join(seconds)
        assert not self.is_alive(), "it hangs"
        return self.error
