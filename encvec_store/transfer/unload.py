"""Export step by step: every record is decrypted, each once.

What is written is plaintext. A file or table gets its name only when all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..collection import Collection
from ..data.ids import Id
from ..data.records import Record
from ..errors import InputError, StaleConfigError

__all__ = ["Progress", "chunks"]

Progress = Callable[[int, int | None], None]
_CHUNK, _BYTES = 2048, 1 << 26


def chunks(
    collection: Collection, progress: Progress | None = None, *, vectors: bool = True, as_text: bool = False
) -> Iterator[list[Record]]:
    """Yield all readable records, some at a time.

    Args:
        collection: where they are.
        progress: called with (records done since the last call, records in all).
        vectors: with their vectors.
        as_text: refuse ids of different types that have the same text.

    Raises:
        InputError: with `as_text`, there are such ids.
        StaleConfigError: a record came twice, because somebody wrote it meanwhile.
    """
    total, seen, texts = collection.count(), set[Id](), set[str]()
    for chunk in _cut(collection.scroll(include_vectors=vectors)):
        for record in chunk:
            if record.id in seen:
                raise StaleConfigError(
                    f"record {record.id!r} was written while it was exported: nothing was kept, try again"
                )
            seen.add(record.id)
            text = str(record.id)
            if as_text and (text in texts or (text in seen and not isinstance(record.id, str))):
                raise InputError(
                    f"two records have ids with the text {text!r}, which this format cannot tell apart: export to .npy,"
                    " whose JSON lines keep the types of ids"
                )
            if not isinstance(record.id, str):
                texts.add(text)
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
