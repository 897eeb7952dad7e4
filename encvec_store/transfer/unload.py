"""Export step by step: every record is decrypted, each once.

What is written is plaintext. A file or table gets its name only when all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..collection import Collection
from ..data.records import Record
from ..errors import StaleConfigError

__all__ = ["Progress", "chunks"]

Progress = Callable[[int, int | None], None]
_CHUNK, _BYTES = 2048, 1 << 26


def chunks(collection: Collection, progress: Progress | None = None, *, vectors: bool = True) -> Iterator[list[Record]]:
    """Yield all readable records, some at a time.

    Raises:
        StaleConfigError: a record came twice, since somebody wrote it meanwhile.
    """
    total, seen = collection.count(), set[str]()
    for chunk in _cut(collection.scroll(include_vectors=vectors)):
        for record in chunk:
            if record.id in seen:
                raise StaleConfigError(
                    f"record {record.id!r} was written while it was exported: nothing was kept, try again"
                )
            seen.add(record.id)
        yield chunk
        if progress is not None:
            progress(len(chunk), total)


def _cut(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield records some at a time: fewer of them where documents are long."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        texts = [record.document, *record.metadata.values()]
        size += sum(len(text) for text in texts if isinstance(text, str | bytes))
        if len(chunk) == _CHUNK or size > _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
