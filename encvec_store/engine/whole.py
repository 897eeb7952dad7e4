"""Checks that parts of records which were read one after the other belong together."""

from __future__ import annotations

from collections.abc import Sequence

from ..crypto.envelope import PREFIX
from ..data.arrays import Bytes, Rows
from ..errors import AuthenticationError, StaleConfigError
from ..sealing.codec import of_one_write
from ..sealing.config import CollectionConfig
from ..storage.protocol import EVERY
from .parts import Parts
from .session import Session

__all__ = ["require_whole"]


def require_whole(
    session: Session,
    rows: Rows,
    heads: Bytes,
    prefixes: Sequence[bytes],
    under: CollectionConfig,
    parts: Parts | None = None,
) -> None:
    """Check that the vector and the payload of each of n records were sealed by the same write.

    Args:
        session: the collection.
        rows: (n,) the rows.
        heads: (n, PREFIX) token and header of the vector parts.
        prefixes: token and header of the n payload parts.
        under: the settings before the first part was read.
        parts: where they were read, if not in the store.

    Raises:
        AuthenticationError: a vector and a payload do not belong together.
        StaleConfigError: the records were rewritten, or sealed anew, between the two reads.
    """
    if of_one_write(heads, prefixes):
        return
    if session.refresh(force=True).rewritten != under.rewritten:
        raise StaleConfigError("the collection was rewritten under other settings meanwhile")
    if parts is None or not parts.hides:  # otherwise vectors and payloads are read together
        odd = rows[[head.tobytes() != prefix for head, prefix in zip(heads, prefixes, strict=True)]]
        if parts is not None:
            parts.forget(odd)
        _, found, vectors, payloads = session.records.current(odd, EVERY)
        if of_one_write(vectors[:, :PREFIX], [payloads.get(row, b"")[:PREFIX] for row in found.tolist()]):
            raise StaleConfigError("records were sealed anew meanwhile")
    raise AuthenticationError("a record could not be authenticated")
