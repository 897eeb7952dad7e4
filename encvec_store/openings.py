"""The open collections of a store. Each is opened once, and kept open for a while after its last use."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from dataclasses import replace

from .collection import Shared
from .engine.session import Session
from .errors import EncvecError
from .indexes.protocol import Connection
from .runtime.forks import Mutex
from .sealed_index import Index, index_of
from .sealing.config import CollectionConfig

__all__ = ["KEPT", "Openings", "shared_index"]

KEPT = 1_000
"""Collections that a store keeps open. Programs that open one for each request find its keys and index again."""
_LOOKS = 8
"""Collections looked at when there are too many. Those in use stay."""

log = logging.getLogger("encvec_store")

Place = tuple[str, str]


class Openings:
    """Open collections by (tenant, name), the one opened longest ago first.

    What is handed out stands for a use: `Collection` objects hold it, and while they do the collection stays open.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[Place, tuple[Shared, weakref.ref[Shared]]] = OrderedDict()
        """The collection, and what was handed out of it last."""
        self._lock = Mutex()

    def get(self, place: Place) -> Shared | None:
        """Return an open collection; None if it is not open."""
        with self._lock:
            found = self._held.get(place)
            return None if found is None else self._used(place, found[0], found[1]())

    def add(self, place: Place, shared: Shared) -> Shared:
        """Keep a collection. Use what is returned."""
        with self._lock:
            return self._used(place, shared, None)

    def pop(self, place: Place) -> Shared | None:
        """Take out a collection, also one in use."""
        with self._lock:
            found = self._held.pop(place, None)
            return None if found is None else found[0]

    def unused(self) -> list[Shared]:
        """Take out collections that nobody uses, if there are too many. The caller closes them."""
        gone = []
        with self._lock:
            for _ in range(_LOOKS):
                if len(self._held) <= KEPT:
                    break
                place, (shared, used) = next(iter(self._held.items()))
                if used() is not None or shared.lifecycle.job.running:
                    self._held.move_to_end(place)
                else:
                    gone.append(self._held.pop(place)[0])
        return gone

    def close_unused(self) -> None:
        """Close collections that nobody has used for a long time, if many are open."""
        for each in self.unused():
            try:
                each.close()
            except EncvecError as error:  # it was dropped, perhaps; the records are stored in any case
                log.info("an index was not stored when its collection was closed: %s", error)

    def clear(self) -> list[Shared]:
        """Take out all collections."""
        with self._lock:
            found, self._held = [shared for shared, _ in self._held.values()], OrderedDict()
            return found

    def _used(self, place: Place, shared: Shared, handed: Shared | None) -> Shared:
        use = replace(shared) if handed is None else handed
        self._held[place] = shared, weakref.ref(use)
        self._held.move_to_end(place)
        return use


def shared_index(session: Session, config: CollectionConfig, connection: Connection) -> Index:
    """Return the index over opened vectors of a collection, which all its openings in this process share."""
    spec, place = session.records.spec, None
    if connection.shared:
        proof = session.keyring.tag(b"one index in a process")  # who has other keys gets an index of their own
        kept = connection.kind, connection.device
        written = config.incarnation, config.ranked
        place = connection.store.url, spec.tenant, spec.name, *written, proof, *kept
    given = {"builds": not config.ranked, "stored": connection.lasting}  # index vectors have an index of their own
    index = index_of(place, config.metric, config.dim, connection.kind, device=connection.device, **given)
    session.keyring.until_erased(index.sealed)
    return index
