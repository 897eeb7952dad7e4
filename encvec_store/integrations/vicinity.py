"""vicinity: a collection as a backend, and a Vicinity whose items are sealed beside their vectors.

    from encvec_store.integrations.vicinity import EncvecVicinity

    words = EncvecVicinity.from_vectors_and_items(vectors, items, collection=store.collection("words", dim=384))
    words.query(vector, k=5)

Needs the extra `vicinity`. vicinity's list of backends is fixed, so that `backend_type="encvec"` and `Vicinity.load`
cannot find this one: it is passed as an object.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

try:
    from vicinity import Metric, Vicinity
    from vicinity.backends.base import AbstractBackend, BaseArgs
except ImportError as error:
    raise ImportError(f"this needs vicinity ({error}): pip install 'encvec-store[vicinity]'") from None

from .. import Collection, Store
from ..errors import InputError

__all__ = ["EncvecBackend", "EncvecVicinity"]

Made = TypeVar("Made", bound="EncvecBackend | EncvecVicinity")
Answers = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]
_METRICS = {"cosine": Metric.COSINE, "l2": Metric.EUCLIDEAN, "ip": Metric.INNER_PRODUCT}
_ITEM, _NUMBER = "item", "number"
"""Keys of the metadata: an item, and a number that says where it stands."""


class _Kind(StrEnum):
    ENCVEC = "encvec"


@dataclass
class EncvecArgs(BaseArgs):
    """Which collection a backend is over. `save` writes this, without address and keys."""

    collection: str = ""
    tenant: str = ""


class EncvecBackend(AbstractBackend):
    """A vicinity backend over one collection: `Vicinity(items, EncvecBackend(collection))`.

    Positions are those of the records in the order of their insertion; records of others follow. Distances are those
    of vicinity: 1 - cosine, the Euclidean distance, and 1 - inner product. One object at a time may write: what
    others wrote since it was made is left out of its answers.

    Args:
        collection: a `Collection`. Vectors of length zero have no cosine, and are refused.
    """

    argument_class = EncvecArgs

    def __init__(self, collection: Collection) -> None:
        if not isinstance(collection, Collection):
            raise InputError(f"collection must be a Collection, got {type(collection).__name__}")
        super().__init__(EncvecArgs(_METRICS[collection.metric], collection.name, collection.tenant))
        self.collection = collection
        records = sorted(collection.scroll(include_vectors=False), key=_place)
        self._ids: list[Any] = [record.id for record in records]
        self._next = max((_place(record)[1] + 1 for record in records), default=0)
        self.items = [record.metadata.get(_ITEM, record.id) for record in records]
        """What the records say that they are, when this object was made; a record of others is its id."""

    @classmethod
    def from_vectors(
        cls, vectors: npt.ArrayLike, *args: Any, collection: Collection | None = None, **options: Any
    ) -> EncvecBackend:
        """Write vectors, (n, dim), to an empty collection, and return the backend over it."""
        made = _empty(cls(_given(collection)))
        made.insert(vectors)
        return made

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._ids)

    @property
    def backend_type(self) -> _Kind:
        """What `Vicinity.save` writes down, and `Vicinity.load` does not know."""
        return _Kind.ENCVEC

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self.collection.dim

    def insert(self, vectors: npt.ArrayLike, items: Iterable[Any] | None = None) -> None:
        """Write vectors, (n, dim), all or nothing; with their n items, if these are to be sealed too."""
        ids = [uuid.uuid4() for _ in np.asarray(vectors)]
        metadata: list[dict[str, Any]] = [{_NUMBER: self._next + at} for at in range(len(ids))]
        if items is not None:
            metadata = [{**each, _ITEM: item} for each, item in zip(metadata, items, strict=True)]
        self.collection.upsert(ids, vectors, metadata)
        self._ids.extend(ids)
        self._next += len(ids)

    def delete(self, indices: Iterable[int]) -> None:
        """Delete the records at these positions. Later ones move up. Raises InputError for a position that is none."""
        gone = {int(at) for at in indices}
        wrong = [at for at in gone if not 0 <= at < len(self._ids)]
        if wrong:
            raise InputError(f"positions must be from 0 to {len(self._ids) - 1}, got {sorted(wrong)}")
        self.collection.delete([self._ids[at] for at in gone])
        self._ids = [name for at, name in enumerate(self._ids) if at not in gone]

    def query(self, vectors: npt.ArrayLike, k: int) -> Answers:
        """Return positions and distances of the k nearest, nearest first, for each query of (q, dim)."""
        return self._found(vectors, k)

    def threshold(self, vectors: npt.ArrayLike, threshold: float, max_k: int) -> Answers:
        """Return positions and distances of the nearest within a distance, at most `max_k` of them, nearest first."""
        return self._found(vectors, max_k, threshold=threshold if self.collection.metric == "l2" else 1 - threshold)

    def _found(self, vectors: npt.ArrayLike, k: int, **options: Any) -> Answers:
        places = {name: at for at, name in enumerate(self._ids)}
        answers = []
        for hits in self.collection.search(np.atleast_2d(vectors), k, **options):
            known = [(places[hit.id], hit.score) for hit in hits if hit.id in places]
            scores = np.array([score for _, score in known], dtype=float)
            distances = scores if self.collection.metric == "l2" else 1 - scores
            answers.append((np.array([at for at, _ in known], dtype=np.int64), distances))
        return answers

    def get_by_index(self, indices: Iterable[int]) -> npt.NDArray[np.float32]:
        """Return the vectors at these positions: (n, dim)."""
        records = self.collection.get([self._ids[at] for at in indices])
        return np.array([record.vector for record in records], dtype=np.float32).reshape(-1, self.dim)

    def save(self, path: Path) -> None:
        """Write which collection this is, in a folder. Vectors stay in the store."""
        self.arguments.dump(path / "arguments.json")

    @classmethod
    def load(cls, path: Path, collection: Collection | None = None) -> EncvecBackend:
        """Open the backend over a collection. Raises InputError if another one was saved."""
        made, saved = cls(_given(collection)), EncvecArgs.load(path / "arguments.json")
        if made.arguments != saved:
            raise InputError(f"{saved} was saved here, got {made.arguments}")
        return made


class EncvecVicinity(Vicinity):
    """A Vicinity over one collection. Its items are sealed beside their vectors: nothing is in plaintext, or has to be
    saved. `EncvecVicinity(collection)` opens what is there. A record that was not written here is its id.

    Args:
        collection: a `Collection`. Items may be what metadata can hold: text, numbers, mappings, lists and so on.
    """

    def __init__(self, collection: Collection) -> None:
        backend = EncvecBackend(collection)
        super().__init__(backend.items, backend)

    @classmethod
    def from_vectors_and_items(
        cls, vectors: npt.ArrayLike, items: Sequence[Any], *, collection: Collection
    ) -> EncvecVicinity:
        """Write vectors, (n, dim), and their n items to an empty collection, all or nothing.

        Raises InputError if the collection is not empty, or the vectors or items are of another number or kind.
        """
        made = _empty(cls(collection))
        made.insert(items, vectors)
        return made

    def insert(self, tokens: Sequence[Any], vectors: npt.ArrayLike) -> None:
        """Write items with their vectors, (n, dim), all or nothing."""
        if len(tokens) != len(np.asarray(vectors)):
            raise InputError(f"vectors must be {len(tokens)}, one for each item, got {len(np.asarray(vectors))}")
        self.backend.insert(vectors, tokens)
        self.items.extend(tokens)

    def get_vector_by_index(self, index: int | Iterable[int]) -> npt.NDArray[np.float32]:
        """Return the vectors at one position or several: (n, dim). Raises InputError for a position that is none."""
        wanted = [index] if isinstance(index, int) else list(index)
        if not all(0 <= at < len(self) for at in wanted):
            raise InputError(f"positions must be from 0 to {len(self) - 1}, got {wanted}")
        vectors: npt.NDArray[np.float32] = self.backend.get_by_index(wanted)
        return vectors

    def save(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write which collection this is, and `metadata` as JSON. Items and vectors stay in the store."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=overwrite)
        self.backend.save(path)
        (path / "metadata.json").write_text(json.dumps(self.metadata), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, store: Store) -> EncvecVicinity:
        """Open what was saved, in the store that has the collection."""
        saved = EncvecArgs.load(Path(folder) / "arguments.json")
        made = cls(store.collection(saved.collection, tenant=saved.tenant))
        made.metadata = json.loads((Path(folder) / "metadata.json").read_text(encoding="utf-8"))
        return made

    def push_to_hub(self, *args: Any, **options: Any) -> NoReturn:
        """Raise InputError: this would publish items and vectors in plaintext."""
        raise InputError("a collection is not published: that would show its items and vectors to everyone")


def _place(record: Any) -> tuple[bool, int, str]:
    """Sort by number; records without one come last, by id."""
    number = record.metadata.get(_NUMBER)
    return (False, number, "") if type(number) is int else (True, -1, str(record.id))


def _empty(made: Made) -> Made:
    if len(made):
        raise InputError(
            f"the collection must be empty, it has {len(made)} records: {type(made).__name__}(collection) opens it"
        )
    return made


def _given(collection: Collection | None) -> Collection:
    if collection is None:
        raise InputError("collection must be a Collection, got None: vicinity does not know where it is")
    return collection
