"""An open collection: its records, index, keys and current settings.

All `Collection` objects of a store that name the same collection share one session. The session reads the settings.
It never accepts settings that are older than those it has seen, or that belong to another collection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import PREFIX, envelope_size
from ..data.arrays import Rows
from ..data.filters import Predicate
from ..data.partitions import by_version, version_of
from ..data.precision import Precision
from ..errors import (
    AuthenticationError,
    EncvecError,
    KeyUnavailableError,
    ReplicaLagError,
    StaleConfigError,
    StoreUnreachableError,
)
from ..indexes.protocol import BringsEnvelopes, KeepsEnvelopes, KeepsFiles, Nearest, Probes, VectorIndex
from ..runtime.concurrency import offload, sleep
from ..runtime.forks import Mutex
from ..schemes.drift import Drift
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig
from ..sealing.keyring import PROFILE, Keyring
from ..storage.protocol import BUSY, Records, union
from .envelopes import are_covered, differ, refusal
from .parts import Parts

__all__ = ["Session"]

log = logging.getLogger("encvec_store")
_ATTEMPTS = 4
_LOOK = 30.0
"""Seconds after which a search reads the settings again, even if no record showed a change."""
_LAG = 5.0
"""Seconds to wait for a replica to catch up."""


class Session:
    """What reads, writes and searches of one collection share.

    Args:
        records: the collection in its record store.
        index: the index over these records.
        keyring: the collection's keys.
        replica: True if the store is a replica, which may lag behind. On older settings the session waits for it.
    """

    def __init__(self, records: Records, index: VectorIndex, keyring: Keyring, *, replica: bool = False) -> None:
        self.records = records
        self.index = index
        self.keyring = keyring
        # asked once: `isinstance` of a protocol takes as long as a small step of a search
        self._brings, self._keeps = isinstance(index, BringsEnvelopes), isinstance(index, KeepsEnvelopes)
        self._replica = replica
        self._lock = Mutex()
        self._generation = records.generation()
        self._looked = time.monotonic()
        self.drift = Drift()
        self.config = self._open_config(records.config())
        # the index dimension of a fitted scheme changes when another process fits it, so it is not compared here
        fixed = not self.config.scheme.needs_profile
        if records.spec.envelope_size != envelope_size(self.config.dim, self.config.precision) or (
            fixed and records.spec.index_dim != self.config.index_dim
        ):
            raise AuthenticationError("the collection's settings could not be authenticated")
        # a store cannot tell this of records without index vectors, and it matters once they get some
        records.spec = replace(records.spec, half=self.config.precision is Precision.HALF)
        self._check_newest()
        if isinstance(index, KeepsFiles):
            index.authenticate(keyring)

    # settings

    def refresh(self, *, force: bool = False) -> CollectionConfig:
        """Return the current settings. Another process may have changed them.

        Args:
            force: read them even if the store says that nothing was written.

        Raises:
            AuthenticationError: they are older than those seen before, or belong to another collection.
            ReplicaLagError: they are older, and the replica did not catch up in time.
            TenantErasedError: the tenant was erased.
        """
        self.keyring.primary  # noqa: B018 - first of all, the tenant must not have been erased
        deadline = time.monotonic() + _LAG
        while True:
            known = self._generation
            generation = self.records.generation()
            if generation == known and not force:
                return self.config
            sealed, held = self.records.config(), self.config
            config = held if sealed == held.sealed else self._open_config(sealed)
            if self._lags(config, held):
                if time.monotonic() > deadline:
                    raise ReplicaLagError(
                        f"the replica lags behind: its settings have revision {config.revision}, and revision"
                        f" {held.revision} was seen. Search again later, or connect to the primary"
                    )
                sleep(0.1)
                continue
            with self._lock:  # never held while the store works: see `runtime.concurrency`
                if self._generation == known:  # otherwise another thread refreshed meanwhile: compare again
                    config.check_follows(self.config)
                    self.config, self._generation = config, generation
                    return self.config

    def _lags(self, config: CollectionConfig, held: CollectionConfig) -> bool:
        return self._replica and config.incarnation == held.incarnation and config.revision < held.revision

    def settings(self) -> CollectionConfig:
        """Return settings for a search, mostly without asking the store.

        Every record names the revision of the settings it was written under, and `open_vectors` compares it. Two
        changes do not show in records: the first write sets `max_norm`, and the number of candidates grows with the
        collection. Because of these the store is asked from time to time.
        """
        config, now = self.config, time.monotonic()
        # without index vectors, the source of candidates asks for the newest generation at every search
        told = not config.index_dim or config.max_norm or not config.metric.bounded
        if told and now - self._looked < _LOOK:
            return config
        self._looked = now
        return self.refresh()

    def check(self) -> list[str]:
        """Open the stored settings and profile again; describe what does not open or was put back."""
        try:
            self._open_config(self.records.config()).check_follows(self.config)
        except AuthenticationError as error:
            return [str(error)]
        return []

    def _check_newest(self) -> None:
        """Check that the settings are not older than the newest record. A new process can check only this.

        Otherwise the next change of old settings would get a revision that covers these records. A damaged record is
        skipped here; whoever reads it gets an error.
        """
        row = self.records.newest()
        _, envelopes = self.records.vectors(np.array([row] if row else [], np.int64))
        if not len(envelopes) or self.covers(envelopes):
            return
        try:
            self.keyring.open_vectors(envelopes)
        except (AuthenticationError, KeyUnavailableError):
            return
        if not are_covered(self.refresh(force=True), envelopes):
            raise AuthenticationError(refusal(self.config, envelopes))

    def _open_config(self, sealed: bytes) -> CollectionConfig:
        """Open settings and the profile they name. The profile may be replaced between the two reads."""
        for _ in range(_ATTEMPTS):
            config = self.keyring.open_config(sealed)
            digest = config.scheme.profile
            if digest is None:
                return config
            blob = self.records.blob(PROFILE)
            try:
                if blob is None:
                    raise AuthenticationError("the collection's profile is missing: it was removed")
                return replace(config, profile=self.keyring.open_profile(blob, digest))
            except AuthenticationError:
                before, sealed = sealed, self.records.config()
                if sealed == before:
                    raise
        raise StaleConfigError("the collection's settings kept changing while they were read; try again")

    # rows

    def never_whole(self, since: int) -> EncvecError:
        """Return the error for a reading of which rows were missing at every look since a generation."""
        if self.records.generation() == since:
            return AuthenticationError("a part of a record is missing in the store, which was damaged: run verify")
        return StoreUnreachableError(BUSY)

    def without(self, rows: Rows, versions: set[int]) -> Rows:
        """Leave out rows that belong to these key versions. Rows that do not exist stay in."""
        if not len(rows) or versions.isdisjoint(by_version(self.records.partitions()) if versions else ()):
            return rows
        known = self.records.audit(rows)
        return rows[~np.isin(rows, [row for row, partition, _, _ in known if version_of(partition) in versions])]

    def key_versions(self) -> dict[str, int]:
        """Count records by key version."""
        return {str(version): n for version, n in by_version(self.records.partitions()).items()}

    def sample(self, limit: int, seed: int) -> npt.NDArray[np.float32]:
        """Open up to `limit` vectors drawn at random, (n, dim), in the order of their writes."""
        vectors = np.empty((0, self.config.dim), np.float32)
        for _ in range(_ATTEMPTS):
            rows = self.without(self.records.rows(), self.keyring.dead)
            if len(rows) > limit:
                rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
            found, vectors, _ = self.open_vectors(rows)
            if len(found) == len(rows):
                break  # otherwise some were written again after they were listed: look again
        return vectors

    # opened parts

    def open_vectors(
        self,
        rows: Rows,
        config: CollectionConfig | None = None,
        sent: tuple[Rows, npt.NDArray[np.uint8]] | None = None,
        parts: Parts | None = None,
    ) -> tuple[Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Fetch and open exact vectors: (found rows in order, (m, dim) float32, (m, PREFIX) token and header).

        If a cached copy does not open, the record itself is read before an error is raised.

        Args:
            rows: (n,) rows.
            config: the settings under which the rows were found; by default the current ones.
            sent: what `records.vectors` has given for these rows and others, ascending. Without it they are fetched.
            parts: reads sealed parts instead of the store.

        Raises:
            AuthenticationError: the key is wrong, a record was altered, or older settings were put back.
            StaleConfigError: the records were rewritten under other settings meanwhile; search again.
        """
        under = config or self.config  # taken first: what is read afterwards may be newer, never older
        if sent is not None and np.isin(rows, sent[0]).all():
            envelopes = sent[1][np.searchsorted(sent[0], rows)]
            return self._opened(rows, rows, envelopes, under, strict=config is not None)
        kept = parts or (cast(KeepsEnvelopes, self.index) if self._keeps else self.records)
        return self._opened(rows, *kept.vectors(rows), under, strict=config is not None, parts=parts)

    def current(
        self, rows: Rows, config: CollectionConfig, most: int = 0, parts: Parts | None = None
    ) -> tuple[int, Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8], dict[int, bytes]]:
        """Do what `open_vectors` does by one read: (a generation, *open_vectors(rows), payloads).

        The generation was current during the call. Payload envelopes of at most `most` bytes come too, by row.
        """
        generation, found, envelopes, payloads = (parts or self.records).current(rows, most)
        return generation, *self._opened(rows, found, envelopes, config, strict=True, parts=parts), payloads

    def nearest(
        self, probes: Probes, limit: int, predicate: Predicate | None, config: CollectionConfig
    ) -> tuple[Nearest, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Fetch the candidates of queries and open their exact vectors: (candidates, vectors, tokens and headers).

        Raises what `open_vectors` does.
        """
        if self._brings:
            found = cast(BringsEnvelopes, self.index).nearest(probes, limit, predicate)
        else:
            lists = self.index.candidates(probes, limit, predicate)
            found = Nearest(lists, *self.records.vectors(union(lists)))
        found.rows, vectors, heads = self._opened(found.rows, found.rows, found.vectors, config, strict=True)
        return found, vectors, heads

    def _opened(
        self,
        rows: Rows,
        found: Rows,
        envelopes: npt.NDArray[np.uint8],
        under: CollectionConfig,
        *,
        strict: bool,
        parts: Parts | None = None,
    ) -> tuple[Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        try:
            return found, self._open(envelopes, under, strict=strict), envelopes[:, :PREFIX]
        except AuthenticationError:
            if parts is not None:
                parts.forget(rows)
            if parts is not None and parts.hides:  # reading these rows again would show which ones a query needs
                if self.refresh(force=True).rewritten != under.rewritten:
                    raise StaleConfigError("the collection was rewritten under other settings meanwhile") from None
                raise
            again, fresh = self.records.vectors(rows)
            opened = self._open(fresh, self.config, strict=False)
        if self.refresh(force=True).rewritten != under.rewritten:
            if strict:
                raise StaleConfigError("the collection was rewritten under other settings meanwhile")
        elif differ(found, envelopes, again, fresh):
            log.warning("a cached sealed vector was damaged; the index cache is dropped and rebuilt from the records")
            self.index.forget()
        return again, opened, fresh[:, :PREFIX]

    def _open(
        self, envelopes: npt.NDArray[np.uint8], under: CollectionConfig, *, strict: bool
    ) -> npt.NDArray[np.float32]:
        """Open envelopes that were found under some settings; unless `strict`, the current settings will do too."""
        if not len(envelopes):
            return np.empty((0, under.dim), np.float32)
        if not are_covered(under, envelopes):
            now = self.refresh(force=True)
            if not are_covered(now, envelopes):
                raise AuthenticationError(refusal(now, envelopes))
            if strict and now.rewritten != under.rewritten:
                raise StaleConfigError("the collection was rewritten under other settings meanwhile")
        return offload(len(envelopes), self.keyring.open_vectors, envelopes)

    def covers(self, envelopes: npt.NDArray[np.uint8]) -> bool:
        """Say whether (n, size) envelopes name a revision that the current settings cover."""
        return are_covered(self.config, envelopes)

    def open_payloads(
        self, rows: Rows, have: Mapping[int, bytes] | None = None, parts: Parts | None = None
    ) -> tuple[Rows, list[Decoded], list[bytes]]:
        """Fetch and open payloads: (found rows, their contents, PREFIX bytes of token and header each).

        Args:
            rows: (n,) rows.
            have: envelopes that were fetched before, by row.
            parts: reads sealed parts instead of the store.
        """
        known = have or {}
        here = [row for row in rows.tolist() if row in known]
        found, envelopes = np.array(here, np.int64), [known[row] for row in here]
        if len(here) < len(rows):
            more, fetched = (parts or self.records).payloads(np.setdiff1d(rows, found) if here else rows)
            found, envelopes = np.concatenate([found, more]), envelopes + fetched
        opened = offload(len(envelopes), self.keyring.open_payloads, envelopes)
        return found, opened, [envelope[:PREFIX] for envelope in envelopes]
