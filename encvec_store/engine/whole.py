"""Reads whole records, and checks that parts which were read one after the other belong together."""

from __future__ import annotations

from collections.abc import Sequence

from ..crypto.envelope import PREFIX
from ..data.arrays import Bytes, Matrix, Rows
from ..errors import AuthenticationError, StaleConfigError
from ..sealing.codec import Decoded, of_one_write
from ..sealing.config import CollectionConfig
from ..storage.protocol import EVERY
from .parts import Parts
from .session import Session

__all__ = ["read_whole", "require_whole"]


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


def read_whole(session: Session, rows: Rows, under: CollectionConfig) -> tuple[Rows, Matrix, list[Decoded]]:
    """Read and open records that others may write meanwhile: (found rows in order, (m, dim) vectors, contents).

    Raises what `require_whole` does.
    """
    _, found, vectors, heads, payloads = session.current(rows, under, EVERY)
    if len(payloads) < len(found):  # some were deleted between two parts of a long read
        there = [row in payloads for row in found.tolist()]
        found, vectors, heads = found[there], vectors[there], heads[there]
    _, opened, prefixes = session.open_payloads(found, payloads)
    require_whole(session, found, heads, prefixes, under)
    return found, vectors, opened
