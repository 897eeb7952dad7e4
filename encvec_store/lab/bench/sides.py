"""What stands side by side in a job: plaintext FAISS or pgvector, and a store under a scheme.

A side holds one index of the data; its variants are ways to search it: at an effort (efSearch, probes), the first
stage alone or with exact re-rank of so many candidates a hit.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...data import Matrix, Metric, metric
from ...indexes.faiss import FaissOptions
from ...keys import Keyset
from ...sealing import DEFAULT_OVERSAMPLE
from ...store import connect
from .encrypted import BATCH, Encrypted, fill
from .plain import Plain
from .source import Data

__all__ = ["PlainFaiss", "PlainPostgres", "Side", "Stored", "Variant", "effort_option"]

Advance = Callable[[int], None]
Child = dict[str, Any]


@dataclass
class Variant:
    """One way to search a side."""

    side: Side
    reranked: bool
    effort: int | None
    """efSearch or probes; None where there is neither."""
    oversample: int | None
    search: Callable[[Matrix], Any]
    search_all: Callable[[Matrix], Sequence[Any]]
    places: Callable[[Sequence[Any]], list[npt.NDArray[np.int64]]]
    """Turns answers into positions of the vectors."""
    prepare: Callable[[], None] | None = None
    child: Child | None = None
    """What a process of its own needs to search alone; see `memory`."""


class Side(Protocol):
    """One index of the data, and what it took."""

    peer: str | None
    """Another project's name; None for plaintext and for the store."""
    store: str
    scheme: Mapping[str, Any]
    kind: str
    storage: str
    build_s: float
    """Seconds from nothing to searchable."""
    build_cpu_s: float
    write_s: float
    """Of them, until every record was durable (plaintext FAISS: added)."""
    index_bytes: int
    bytes: int

    def variants(self, k: int, efforts: Sequence[int], oversamples: Sequence[int]) -> Iterator[Variant]:
        """Yield ways to search for k hits."""
        ...


class _Clock:
    """Seconds on the clock and of the processor, added up."""

    def __init__(self) -> None:
        self.clock = self.cpu = 0.0

    def __enter__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.clock += time.perf_counter() - self._clock
        self.cpu += time.process_time() - self._cpu


def effort_option(store: str, kind: str) -> str | None:
    """Return the name of the option that says how hard a kind of index looks; None for a scan."""
    if kind in ("flat", "none", "exact"):
        return None
    if kind in ("ivf", "ivfflat"):
        return "nprobe" if store == "faiss:" else "probes"
    return "ef_search"


class PlainFaiss:
    """Plaintext FAISS: float32 where the store rounds, so the baseline loses nothing; product quantisers for those."""

    peer: str | None = None
    scheme: Mapping[str, Any] = {"name": "plaintext"}

    def __init__(self, data: Data, options: FaissOptions, folder: Path, done: Advance) -> None:
        storage = "pq" if options.storage == "pq" else "float32"
        self.index = Plain(metric(data.metric), data.vectors, replace(options, storage=storage), done)
        self.store, self.kind, self.storage = Plain.name, self.index.kind, self.index.storage
        self.build_s, self.build_cpu_s = self.index.build_s, self.index.build_cpu_s
        self.write_s = self.build_s
        self.index_bytes = self.bytes = self.index.size()
        self._path = folder / "plain.faiss"

    def variants(self, k: int, efforts: Sequence[int], oversamples: Sequence[int]) -> Iterator[Variant]:
        """Yield a variant for each effort."""
        index, own = self.index, self.index.effort
        self.index.save(self._path)
        for effort in (efforts or [own]) if own is not None else [None]:
            yield Variant(
                self,
                reranked=False,
                effort=effort,
                oversample=None,
                search=lambda query: index.search(query, k),
                search_all=lambda queries: list(index.search_all(queries, k)),
                places=lambda answers: [answer[answer >= 0] for answer in answers],
                prepare=None if effort is None else lambda effort=effort: index.set_effort(effort),  # type: ignore[misc]
                child={"kind": "plain", "index": str(self._path), "effort": effort, "k": k},
            )


class PlainPostgres:
    """Plaintext pgvector, written by hand; see `postgres`."""

    peer: str | None = None
    scheme: Mapping[str, Any] = {"name": "plaintext"}

    def __init__(self, data: Data, url: str, options: Mapping[str, Any], done: Advance, stack: ExitStack) -> None:
        from ...storage.postgres import parse_url
        from .postgres import PlainTable

        self.store = PlainTable.name
        self._options = parse_url(url, options)[2]
        n, dim = len(data.vectors), data.vectors.dim
        kind = self._options.kind_for(n, dim, half=False)
        half = kind == "hnsw" and self._options.storage_for(dim, half=False) == "float16"
        self.kind, self.storage = kind, "float16" if half else "bit" if kind == "bit" else "float32"
        self._sql, self._n = "halfvec" if half else kind, n
        name = f"encvec_bench_{secrets.token_hex(4)}"
        self._table = stack.enter_context(PlainTable(url, name, dim, data.metric))
        writing, indexing = _Clock(), _Clock()
        for first, some in data.vectors.slices(BATCH):
            with writing:
                self._table.load(some, first)
            done(len(some))
        with indexing:
            self._table.index(self._sql)
        self.write_s, self.build_s = writing.clock, writing.clock + indexing.clock
        self.build_cpu_s = writing.cpu + indexing.cpu
        self.index_bytes, self.bytes = self._table.index_size(), self._table.size()

    def variants(self, k: int, efforts: Sequence[int], oversamples: Sequence[int]) -> Iterator[Variant]:
        """Yield a variant for each effort."""
        options = self._options
        own: int | None = options.probes_for(self._n) if self.kind == "ivfflat" else options.ef_search
        if effort_option("postgresql:", self.kind) is None:
            own = None
        for effort in (efforts or [own]) if own is not None else [None]:
            search = self._table.searching(self._sql, effort or 0, k)
            yield Variant(
                self,
                reranked=self.kind == "bit",
                effort=effort,
                oversample=None,
                search=search,
                search_all=search.all,
                places=lambda answers: [np.array(answer, np.int64) for answer in answers],
            )


class Stored:
    """A collection of a store under a scheme."""

    peer: str | None = None

    def __init__(
        self,
        data: Data,
        url: str,
        options: Mapping[str, Any],
        scheme: Mapping[str, Any],
        keys: Keyset,
        done: Advance,
        stack: ExitStack,
        precision: str | None = None,
        *,
        drop: bool = True,
    ) -> None:
        """Fill and index it. It is dropped in the end, unless its folder is to go anyway: ten million take long."""
        self.store = url.partition(":")[0] + ":"
        self._url, self._options, self._keys, self._stack = url, dict(options), keys, stack
        self._name = f"encvec-bench-{secrets.token_hex(4)}"
        measure: Metric = metric(data.metric)
        store = stack.enter_context(connect(url, keyset=keys, maintenance="inline", **self._options))
        collection = store.collection(self._name, data.vectors.dim, measure.name, scheme, precision=precision)
        if drop:
            stack.callback(store.drop, self._name)
        before = _size(collection.stats()["store"])
        writing, indexing = _Clock(), _Clock()
        with writing:
            self.write_s = fill(collection, data.vectors, done)
        self._held = Encrypted(store, collection)
        with indexing:
            self._held.build()
        stats = self._held.stats()
        self.scheme, self._oversample = stats["scheme"], stats["oversample"] or DEFAULT_OVERSAMPLE
        held = stats["store"]
        inside = stats["sealed_index"]
        self.kind = str(inside["kind"] if inside else held["index"])
        self.storage = str(held.get("storage", "float32"))
        self.build_s, self.build_cpu_s = self.write_s + indexing.clock, writing.cpu + indexing.cpu
        self.bytes = _size(held) - before
        self.index_bytes = int(inside["stored_bytes"] if inside else held["bytes"].get("index", 0))

    def variants(self, k: int, efforts: Sequence[int], oversamples: Sequence[int]) -> Iterator[Variant]:
        """Yield the first stage and re-ranked searches at each effort."""
        option = effort_option(self.store, self.kind) if self._held.has_stage_one else None
        for effort in efforts if option and efforts else [None]:
            chosen = {} if effort is None or option is None else {option: effort}
            held, setting = self._at(chosen)
            shown = effort if option is None or chosen else self._own(option)
            wanted = list(oversamples) or [self._oversample]
            stages = [None, *wanted] if self._held.has_stage_one else wanted[:1]
            for oversample in stages:
                reranked = oversample is not None
                yield Variant(
                    self,
                    reranked=reranked,
                    effort=shown,
                    oversample=oversample if self._held.has_stage_one else None,
                    search=_search(held, k, reranked=reranked, all_at_once=False),
                    search_all=_search(held, k, reranked=reranked, all_at_once=True),
                    places=self._held.places,
                    prepare=setting(oversample),
                    child=None if self.store == "memory:" else {
                        "kind": "store",
                        "url": self._url,
                        "options": {**self._options, **chosen},
                        "keys": self._keys.uri,
                        "name": self._name,
                        "oversample": oversample or wanted[0],
                        "reranked": reranked,
                        "k": k,
                    },
                )  # fmt: skip

    def _at(self, chosen: dict[str, int]) -> tuple[Encrypted, Callable[[int | None], Callable[[], None]]]:
        """Return a collection that searches with these options, and what makes a variant's `prepare`."""
        if self.store == "faiss:" or not chosen:
            held, options = self._held, chosen if self.store == "faiss:" else {}
        else:  # options of a connection
            store = self._stack.enter_context(
                connect(self._url, keyset=self._keys, maintenance="inline", **{**self._options, **chosen})
            )
            held, options = Encrypted(store, store.collection(self._name)), {}
        return held, lambda oversample: held.setting(oversample, **options)

    def _own(self, option: str) -> int | None:
        """Return the store's own choice of an effort, where it tells."""
        told = self._held.stats()["store"].get(option)
        return told if isinstance(told, int) and told else None


def _search(held: Encrypted, k: int, *, reranked: bool, all_at_once: bool) -> Callable[[Matrix], Any]:
    if all_at_once:
        ask: Callable[[Matrix, int], Any] = held.search_all if reranked else held.candidates_all
    else:
        ask = held.search if reranked else held.candidates
    return lambda query: ask(query, k)


def _size(store: dict[str, Any]) -> int:
    """Return the bytes of a collection on disk. A file of records is shared by collections, but has an overhead."""
    sizes = dict(store["bytes"])
    if "file_bytes" in store:
        sizes["records"] = store["file_bytes"]
    return int(sum(sizes.values()))
