"""The public collection: one thin method a task; imports the walks, handle, records, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .data.filters import parse, pushdown
from .data.records import Hit, Record, check_ids, decode_payload
from .engine.explain import explain
from .engine.rerank import OpenedVectors
from .engine.search import search
from .engine.session import Handle
from .engine.write import upsert
from .errors import AuthenticationError, InputError
from .maintenance import calibrate as calibration
from .maintenance.lifecycle import Lifecycle
from .maintenance.recall import RecallWatch
from .maintenance.verify import VerifyReport, verify
from .storage import Rows
from .waits import offload

__all__ = ["Collection"]

_CHUNK, _ATTEMPTS = 1024, 4

Progress = Callable[[int, int], None]
"""Called now and then with (records done since the last call, records in all)."""


class Collection:
    """Encrypted records of one tenant under one name. Get one from `Store.collection`.

    May be used from several threads. Every write is durable when the method returns, and all or nothing.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._opened = OpenedVectors(handle)
        self._lifecycle = Lifecycle(handle)
        self._watch: RecallWatch | None = None

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._handle.backend.spec.name

    @property
    def tenant(self) -> str:
        """The tenant it belongs to; "" where there is none."""
        return self._handle.backend.spec.tenant

    @property
    def dim(self) -> int:
        """Coordinates of a vector."""
        return self._handle.config.dim

    @property
    def metric(self) -> str:
        """cosine, l2 or ip."""
        return self._handle.config.metric.name

    def upsert(
        self,
        ids: Sequence[str],
        vectors: npt.ArrayLike,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        documents: Sequence[str | None] | None = None,
    ) -> None:
        """Insert records, or replace those whose ids exist: the whole batch or, on any error, nothing.

        Args:
            ids: n distinct strings, 1 to 1024 bytes each; kept as given.
            vectors: (n, dim) numbers, kept as float32, or as float16 in half precision.
            metadata: n mappings of strings to str, int, float, bool, None, bytes, datetime, date, UUID, Decimal,
                or lists, tuples and dicts of these; types are kept.
            documents: n strings (or None), kept with the records.

        Raises:
            InputError: wrong shape, NaN, zero vector under cosine, norm above max_norm, repeated id, ...
            StoreLockedError: another process is writing.
        """
        upsert(self._handle, ids, vectors, metadata, documents)
        self._lifecycle.wrote(len(ids))

    @overload
    def search(
        self,
        queries: Sequence[float] | np.ndarray[tuple[int], Any],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        queries: Any,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        *,
        include_vectors: bool = False,
    ) -> Any: ...
    def search(
        self, queries: Any, k: int = 10, where: Mapping[str, Any] | None = None, *, include_vectors: bool = False
    ) -> list[Hit] | list[list[Hit]]:
        """Find the k nearest records that satisfy a filter, nearest first, with exact scores.

        Args:
            queries: (dim,) for one list of hits, (q, dim) for a list of q lists.
            k: hits per query; fewer come only when fewer records satisfy the filter.
            where: a filter; see `encvec_store.data.filters`.
            include_vectors: give each hit its vector.

        Raises:
            InputError: wrong shape, NaN, zero query under cosine, malformed filter, unknown field.
            AuthenticationError: a record among the candidates was altered, or the key is wrong.
        """
        hits = search(self._handle, self._opened, queries, k, where, include_vectors)
        if self._watch is not None and where is None:
            self._watch.saw(queries, k, hits)
        return hits

    def watch_recall(self, share: float = 0.01, sample: int = 2_000) -> None:
        """Estimate the recall of this opening's searches, for `stats`, by checking a random share of them.

        A check compares the query with `sample` records, drawn and opened once and kept in memory: about a
        millisecond for each thousand. Searches with a filter are not checked. Off until called; share 0 turns it off.
        """
        self._watch = RecallWatch(self._handle, share, sample) if share else None

    def explain(self, query: npt.ArrayLike, k: int = 10, where: Mapping[str, Any] | None = None) -> str:
        """Say how `search` would answer one query: what is filtered where, by index or by scan, the server's plan.

        For people to read: the text changes between versions. Raises InputError as `search` does.
        """
        return explain(self._handle, query, k, where)

    def get(self, ids: Sequence[str], *, include_vectors: bool = True) -> list[Record]:
        """Return the records of ids, in the order asked; unknown ids are left out."""
        self._handle.refresh()
        names = check_ids(ids, unique=False)
        records: dict[str, Record] = {}
        for _ in range(_ATTEMPTS):
            rows = self._find(names)
            found, read = self._read_rows(rows, include_vectors=include_vectors)
            records = {record.id: record for record in read}
            if len(found) == len(rows):
                break  # else some were written anew after they were found: look again
        return [records[name] for name in names if name in records]

    def delete(self, ids: Sequence[str] | None = None, where: Mapping[str, Any] | None = None) -> int:
        """Delete records by id or by filter, all or nothing; unknown ids are no error. Returns how many."""
        if (ids is None) == (where is None):
            raise InputError("delete takes either ids or where")
        self._handle.refresh()
        if ids is None and not where:
            raise InputError("an empty filter would delete everything; drop the collection instead")
        names, removed = None if ids is None else check_ids(ids, unique=False), 0
        for _ in range(_ATTEMPTS):
            if names is not None:
                rows = self._find(names, held=True)
            else:
                pages = self._matching(where, include_vectors=False)
                rows = np.array([row for page in pages for row, _ in page], np.int64)
            gone = self._handle.backend.remove(rows) if len(rows) else 0
            removed += gone
            if gone == len(rows):
                break  # else some were written or calibrated anew after they were found: look again
        return removed

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        """Count records; with a filter those that satisfy it, and can be opened to find out."""
        if parse(where, self._handle.refresh().policies) is None:
            return self._handle.backend.count()
        return sum(map(len, self._matching(where, include_vectors=False)))

    def scroll(self, where: Mapping[str, Any] | None = None, *, include_vectors: bool = True) -> Iterator[Record]:
        """Iterate over readable records in the order of their last write, with little memory.

        A record that is updated meanwhile may come twice; every record that stays as it is comes once.
        """
        return (record for page in self._pages(where, include_vectors=include_vectors) for record in page)

    def _pages(self, where: Mapping[str, Any] | None, *, include_vectors: bool) -> Iterator[list[Record]]:
        parse(where, self._handle.refresh().policies)  # complain now, not at the first record
        pages = self._matching(where, include_vectors=include_vectors)
        return ([record for _, record in page] for page in pages)

    def index_vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return what a thief would read from the store's index for these ids: (n, index_dim) ciphertexts.

        For attacks of your own. Raises InputError for an unknown id.
        """
        names = check_ids(ids)
        found = self._places(names)
        if not found.all():
            raise InputError(f"no record {names[int(np.flatnonzero(found == 0)[0])]!r}")
        if not self._handle.config.index_dim:
            return np.empty((len(names), 0), np.float32)
        return self._handle.backend.index_vectors(found)[1]

    def calibrate(
        self,
        sample: npt.ArrayLike | None = None,
        *,
        k: int = 10,
        target_recall: float = 0.99,
        max_candidates: int | None = None,
        planned_size: int | None = None,
        apply: bool = True,
        accept_less_noise: bool = False,
        attack: calibration.Attack | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> calibration.Calibration:
        """Choose the largest noise that holds a recall target, and encrypt the collection anew under it.

        For `sketch` it chooses the dimensions and the exponent on queries too. The profile is always fitted on the
        collection's own vectors, whatever the sample; with too few of them yet, the choice is kept until then.

        Args:
            sample: (n, dim) vectors like those to be stored; by default up to 20,000 of the collection's own.
            k: hits that searches will ask for.
            target_recall: share of the true k nearest that must be found, below 1.
            max_candidates: records re-ranked per search; by default k times the collection's oversample.
            planned_size: records the collection shall hold; by default what it holds now.
            apply: take the result over. False only reports.
            accept_less_noise: take it over even below the floor at which our own attacks on `sketch` succeed.
            attack: called with the lifted sample and the scheme chosen; its JSON report is kept.
            seed: of the simulation.
            progress: called while records are encrypted anew.

        Raises:
            CalibrationError: the target cannot be met, or only below the floor, or the sample is too small.
            ProfileError: the vectors vary in too few directions.
        """
        return self._lifecycle.calibrate(
            sample,
            k=k,
            target_recall=target_recall,
            max_candidates=max_candidates,
            planned_size=planned_size,
            apply=apply,
            accept_less_noise=accept_less_noise,
            attack=attack,
            seed=seed,
            progress=progress,
        )

    def refit(self, *, progress: Progress | None = None) -> None:
        """Fit the profile of `sketch` anew on the vectors there are, and encrypt everything under it.

        One transaction: readers see the old content until it commits, and after a crash it is simply run again.

        Args:
            progress: called while records are encrypted anew.

        Raises:
            ProfileError: too few records, or they vary in too few directions.
            CalibrationError: another scheme, which has no profile.
            StaleConfigError: another process did the like meanwhile.
        """
        self._lifecycle.fit(self._handle.refresh(), progress)

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """Open every record, check that its parts belong together, and let the store check itself."""
        return verify(self._handle, progress)

    def stats(self) -> dict[str, Any]:
        """Describe the collection: settings, sizes, key versions, and what its scheme leaks. JSON values."""
        config = (handle := self._handle).refresh()
        return {
            "name": self.name,
            "tenant": self.tenant,
            "count": handle.backend.count(),
            "dim": config.dim,
            "metric": config.metric.name,
            "precision": str(config.precision),
            "max_norm": config.max_norm,
            "scheme": {"name": config.scheme.name, **config.scheme.parameters()},
            "leakage": config.scheme.leakage,
            "profile": self._lifecycle.stats(),
            "recall": None if self._watch is None else self._watch.stats(),
            "fields": config.policies and {name: policy.value for name, policy in config.policies.items()},
            "oversample": handle.oversample,
            "calibration": config.calibration,
            "key_versions": handle.key_versions(),
            "cells": self._lifecycle.cells(),
            "primary": handle.vault.primary,
            "store": handle.backend.stats(),
        }

    def flush(self) -> None:
        """Save the index, so that the next opening is quick. Records are durable without it."""
        self._handle.backend.flush()

    def _find(self, names: list[str], *, held: bool = False) -> Rows:
        """Rows of those ids that there are, ascending; with `held`, under disabled key versions too."""
        tokens = offload(len(names), self._handle.vault.tokens, names, held=held).values()
        rows = np.unique([self._handle.backend.find(part) for part in tokens])
        return rows[rows > 0]

    def _places(self, names: list[str]) -> Rows:
        """Rows of ids, 0 where there is none; a record is looked for under every live key version."""
        found = np.zeros(len(names), np.int64)
        for tokens in offload(len(names), self._handle.vault.tokens, names).values():
            missing = found == 0
            if names and missing.any():
                found[missing] = self._handle.backend.find(tokens[missing])
        return found

    def _matching(
        self, where: Mapping[str, Any] | None, *, include_vectors: bool
    ) -> Iterator[list[tuple[int, Record]]]:
        """Yield (row, record) of what satisfies a filter, a page at a time."""
        handle = self._handle
        node = parse(where, handle.config.policies)
        predicate = pushdown(node, handle.config.policies, handle.vault.blind_terms)
        for rows in handle.pages(_CHUNK, predicate):
            readable = handle.without(rows, handle.vault.dead)
            found, records = self._read_rows(readable, include_vectors=include_vectors)
            pairs = zip(found.tolist(), records, strict=True)
            yield [(row, record) for row, record in pairs if node is None or node(record.metadata)]

    def _read_rows(self, rows: Rows, *, include_vectors: bool) -> tuple[Rows, list[Record]]:
        """Open rows whole. Raises AuthenticationError where the parts of a record do not belong together."""
        found, payloads, prefixes = self._handle.open_payloads(rows)
        decoded = offload(len(payloads), list, map(decode_payload, payloads))
        records = [Record(id, None, fields, text) for id, fields, text in decoded]
        if include_vectors and len(found):
            having, vectors, heads = self._handle.open_vectors(found)
            if len(having) != len(found):  # deleted between the two reads: neither here nor there
                kept = np.isin(found, having)
                records = [record for record, keep in zip(records, kept, strict=True) if keep]
                prefixes = [prefix for prefix, keep in zip(prefixes, kept, strict=True) if keep]
                found = having
            for record, vector, head, prefix in zip(records, vectors, heads, prefixes, strict=True):
                if head.tobytes() != prefix:
                    raise AuthenticationError("a record could not be authenticated")
                record.vector = vector
        return found, records

    def __repr__(self) -> str:
        return (
            f"Collection({self.name!r}, dim={self.dim}, metric={self.metric!r}, scheme={self._handle.config.scheme!r})"
        )
