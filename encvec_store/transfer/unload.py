"""Export step by step: every record is decrypted, each once, all as of one moment.

What is written is plaintext. A file or table gets its name only when all of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..collection import Collection
from ..data.ids import Id
from ..data.records import Record
from ..engine import read
from ..engine.moment import frozen
from ..engine.session import Session
from ..errors import AuthenticationError, InputError
from ..low_level import session

__all__ = ["Moment", "Progress", "moment"]

Progress = Callable[[int, int | None], None]
_CHUNK, _BYTES = 2048, 1 << 26


@contextmanager
def moment(collection: Collection) -> Iterator[Moment]:
    """Give a collection as it is now. It does not hold up writers, and sees nothing of what they write."""
    with frozen(session(collection)) as held:
        yield Moment(held)


class Moment:
    """A collection as it was at one moment."""

    def __init__(self, held: Session) -> None:
        self._session = held
        self.dim, self.metric = held.config.dim, held.config.metric.name
        self.count = held.records.count()

    def chunks(
        self, progress: Progress | None = None, *, vectors: bool = True, as_text: bool = False
    ) -> Iterator[list[Record]]:
        """Yield all readable records, some at a time.

        Args:
            progress: called with (records done since the last call, records in all).
            vectors: with their vectors.
            as_text: refuse ids of different types that have the same text.

        Raises:
            InputError: with `as_text`, there are such ids.
            AuthenticationError: an id is there twice.
        """
        seen, texts = set[Id](), set[str]()
        pages = read.pages(self._session, None, include_vectors=vectors)
        for chunk in _cut(record for page in pages for record in page):
            for record in chunk:
                if record.id in seen:
                    raise AuthenticationError(
                        f"record {record.id!r} is there twice: an old copy of it was put back; nothing was kept"
                    )
                seen.add(record.id)
                text = str(record.id)
                if as_text and (text in texts or (text in seen and not isinstance(record.id, str))):
                    raise InputError(
                        f"two records have ids with the text {text!r}, which this format cannot tell apart: export to"
                        " .npy, whose JSON lines keep the types of ids"
                    )
                if not isinstance(record.id, str):
                    texts.add(text)
            yield chunk
            if progress is not None:
                progress(len(chunk), self.count)


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
