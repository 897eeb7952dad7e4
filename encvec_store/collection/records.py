"""Write, read and delete records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.frames import ResultList, Scroll
from ..data.ids import Id
from ..data.records import Record
from ..engine import read
from ..engine.update import update
from ..engine.write import upsert
from ..errors import InputError, ShapeError
from ..runtime.observing import observed
from .base import OpenCollection
from .texts import check_texts

__all__ = ["RecordVerbs"]


class RecordVerbs(OpenCollection):
    """What a collection does with records."""

    @observed
    def upsert(
        self,
        ids: Sequence[Id],
        vectors: npt.ArrayLike | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        documents: Sequence[str | None] | None = None,
        *,
        texts: Sequence[str] | None = None,
    ) -> int:
        """Insert records, replace those whose ids exist, and return how many. On any error nothing is written.

        Args:
            ids: n distinct strings (1 to 1024 bytes), integers (64 bits) or UUIDs. They come back as they are: 1 and
                "1" are two ids.
            vectors: (n, dim) numbers: an array, a tensor, rows, or a column of vectors. They are kept as float32, or as
                float16 with precision "half".
            metadata: n mappings of strings to str, int, float, bool, None, bytes, datetime, date, UUID, Decimal,
                or lists, tuples and dicts of these; types are kept. numpy scalars and other subclasses become the
                built-in type. Or a data frame: columns become keys, and missing values are left out.
            documents: n strings (or None), sealed with the records.
            texts: in place of vectors: n strings, of which the collection's `embed` makes the vectors. They become the
                documents, unless documents are given.

        Raises:
            InputError: wrong shape, NaN, zero vector under cosine, norm above max_norm, repeated id, ...
            ConfigMismatchError: the collection has vectors of another model.
            StoreLockedError: another process is writing; try again.
        """
        if texts is not None:
            vectors, documents = self._embedded(ids, vectors, documents, texts)
        elif vectors is None:
            raise ShapeError("vectors must be an array or a list, got None: give them, or texts= with embed=")
        upsert(self._session, ids, vectors, metadata, documents, self._embedder.model)
        self._lifecycle.wrote(len(ids))
        return len(ids)

    @observed
    def update(
        self,
        ids: Sequence[Id] | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        documents: Sequence[str | None] | None = None,
        vectors: npt.ArrayLike | None = None,
        texts: Sequence[str] | None = None,
        replace: bool = False,
    ) -> int:
        """Change parts of records that exist, by id or by filter, all or nothing. Returns how many. Others stay away.

        What is not given stays as it is. A vector that is not given is not encrypted again, so the store sees that it
        is the same. An updated record counts as written last. The new records are held in memory until all are sealed.

        Args:
            ids: n distinct ids. Unknown ids are no error, and no record is made for them.
            where: in place of ids: a filter. `{}` finds every record.
            metadata: n mappings, or one mapping for all records. Its keys are set, others stay; None leaves all.
            documents: n strings, with ids only; None leaves a document.
            vectors: (n, dim) numbers, with ids only.
            texts: as for `upsert`, with ids only.
            replace: what is given replaces all metadata and the document of a record, as `upsert` does. None then means
                no metadata, or no document.

        Raises:
            InputError: both or neither of ids and where, nothing to change, or values that `upsert` would refuse.
            StoreUnreachableError: others wrote the same records again and again. Nothing was changed.
            StoreLockedError: another process is writing; try again.
        """
        if texts is not None:
            vectors, documents = self._embedded(ids, vectors, documents, texts)
        changed = update(
            self._session,
            self._sources,
            ids,
            where,
            metadata=metadata,
            documents=documents,
            vectors=vectors,
            replace=replace,
            model=self._embedder.model,
        )
        self._lifecycle.wrote(changed)
        return changed

    def _embedded(self, ids: Any, vectors: Any, documents: Any, texts: Any) -> tuple[Any, Any]:
        """Return the vectors and documents of texts."""
        if ids is None or vectors is not None:
            raise InputError("texts need ids, and stand in place of vectors: give one of the two")
        words, session = check_texts(texts, ids), self._session
        made = self._embedder.vectors(words, session.refresh(), self.name)
        return made, words if documents is None else documents

    @observed
    def get(
        self,
        ids: Sequence[Id] | None = None,
        where: Mapping[str, Any] | None = None,
        *,
        order_by: str | Sequence[str] | None = None,
        offset: int = 0,
        limit: int | None = None,
        include_vectors: bool = True,
    ) -> ResultList[Record]:
        """Return records by id, by filter, by both, or all of them. Use `scroll` for more than memory holds.

        Ids that do not exist are left out. With `ids` records come in the order of `ids`, without in the order of their
        last write; `order_by` sorts them. At last, `offset` of them are skipped and at most `limit` returned. The list
        has `to_arrow`, `to_pandas` and `to_polars`.

        Args:
            ids: the records of these ids. An id that is given twice comes twice.
            where: a filter; the records must satisfy it.
            order_by: a field of the metadata, or several, the most important first; `"-year"` descends. Records without
                the field, or with a value that has no order, come last. Equal ones keep their order.
            offset: how many to skip.
            limit: how many to return at most.
            include_vectors: if False, records come without their vectors.

        Raises:
            InputError: malformed id, filter, order, offset or limit; a field that the collection does not declare.
            StoreUnreachableError: records were written again before they could be read, each time it tried.
        """
        how: dict[str, Any] = {"order_by": order_by, "offset": offset, "limit": limit}
        return ResultList(read.select(self._session, self._sources, ids, where, **how, include_vectors=include_vectors))

    @observed
    def delete(self, ids: Sequence[Id] | None = None, where: Mapping[str, Any] | None = None) -> int:
        """Delete records by id or by filter, all or nothing. Returns how many. Unknown ids are no error.

        Raises StoreUnreachableError if others write the same records again and again. It says how many were deleted.
        """
        return read.delete(self._session, self._sources, ids, where)

    @observed
    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """Count records. With a filter, count the readable records that satisfy it."""
        return read.count(self._session, self._sources, where)

    def scroll(self, where: Mapping[str, Any] | None = None, *, include_vectors: bool = True) -> Scroll:
        """Iterate over readable records in the order of their last write, with little memory.

        The records of one upsert come in random order, because the store must not reveal the order they were given in.
        A record that is updated during the iteration may come twice, as may one with an index vector that `rekey`
        moves. A record that stays unchanged comes once.
        """
        return Scroll(record for page in self._pages(where, include_vectors=include_vectors) for record in page)

    def _pages(self, where: Mapping[str, Any] | None, *, include_vectors: bool) -> Iterator[list[Record]]:
        return self._kept_open(read.pages(self._session, where, include_vectors=include_vectors))

    def _kept_open(self, pages: Iterator[list[Record]]) -> Iterator[list[Record]]:
        """Hold the collection until the last page was read."""
        yield from pages

    def index_vectors(self, ids: Sequence[Id]) -> npt.NDArray[np.float32]:
        """Return the index vectors of these ids, as a thief would read them from the store: (n, index_dim).

        Use this to try attacks of your own. Raises InputError for an unknown id.
        """
        return read.index_vectors(self._session, ids)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:  # also if it is empty: a truth test must not ask the store
        return True

    def __contains__(self, id: Id) -> bool:
        return bool(self.get([id], include_vectors=False))
