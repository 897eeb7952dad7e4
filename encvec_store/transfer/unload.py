"""The walk out: every record, opened, each once.

What is written is plaintext. Nothing stands under its name before all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..collection import Collection
from ..data.records import Record
from ..errors import StaleConfigError

__all__ = ["Progress", "chunks"]

Progress = Callable[[int, int | None], None]


def chunks(collection: Collection, progress: Progress | None = None, *, vectors: bool = True) -> Iterator[list[Record]]:
    """Yield all readable records, some at a time.

    Raises:
        StaleConfigError: a record came twice, since somebody wrote it meanwhile.
    """
    total, seen = collection.count(), set[str]()
    for chunk in collection._pages(None, include_vectors=vectors):
        if not chunk:
            continue
        for record in chunk:
            if record.id in seen:
                raise StaleConfigError(
                    f"record {record.id!r} was written while it was exported: nothing was kept, try again"
                )
            seen.add(record.id)
        yield chunk
        if progress is not None:
            progress(len(chunk), total)
