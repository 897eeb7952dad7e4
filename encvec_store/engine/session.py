"""An open collection: its backend, keys and current settings, kept together; imports backends, vault, drift, config."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import PREFIX, envelope_size
from ..data.filters import Predicate
from ..data.spaces import by_version, version_of
from ..errors import AuthenticationError, StaleConfigError, StoreUnreachableError
from ..schemes.drift import Drift
from ..schemes.sketch import Sketch
from ..sealing.config import CollectionConfig
from ..sealing.keyring import PROFILE, Vault
from ..storage import BackendCollection, Nearest, Probes, Rows
from ..waits import offload

__all__ = ["Handle"]

log = logging.getLogger("encvec_store")
_ATTEMPTS = 4
_LOOK = 30.0
"""Seconds after which a search asks for the settings, though records would tell if they were rewritten."""


class Handle:
    """What the write walk and the query walk share."""

    def __init__(self, backend: BackendCollection, vault: Vault, oversample: int | None = None) -> None:
        self.backend = backend
        self.vault = vault
        self._oversample = oversample
        self._lock = threading.Lock()
        self._generation = backend.generation()
        self._looked = time.monotonic()
        self.drift = Drift()
        self.config = self._open_config(backend.config())
        # a sketch's dimension changes when another process fits it: there, searches compare
        fixed = not isinstance(self.config.scheme, Sketch)
        if backend.spec.envelope_size != envelope_size(self.config.dim, self.config.precision) or (
            fixed and backend.spec.index_dim != self.config.index_dim
        ):
            raise AuthenticationError("the collection's settings could not be authenticated")
        backend.authenticate_cache(vault)

    def refresh(self) -> CollectionConfig:
        """Return the settings as they stand now: another process may have calibrated meanwhile."""
        while True:
            known = self._generation
            generation = self.backend.generation()
            if generation == known:
                return self.config
            sealed, held = self.backend.config(), self.config
            config = held if sealed == held.sealed else self._open_config(sealed)
            with self._lock:  # not while the backend works: see `waits`
                if self._generation == known:  # else somebody refreshed meanwhile: look whether that was later
                    self.config, self._generation = config, generation
                    return self.config

    def settings(self) -> CollectionConfig:
        """Return settings to search under, without asking the store where the records that come will tell.

        Every record names the revision it was written under, and `open_vectors` compares. Without a revision of
        their own are the bound of lengths, which the first write sets, and how many candidates are re-ranked, which
        grows with the collection: for that the store is asked now and then.
        """
        config, now = self.config, time.monotonic()
        told = config.index_dim and (config.max_norm or not config.metric.bounded)
        if told and now - self._looked < _LOOK:
            return config
        self._looked = now
        return self.refresh()

    def check(self) -> list[str]:
        """Open what is stored of settings and profile anew; describe what does not open."""
        try:
            self._open_config(self.backend.config())
        except AuthenticationError as error:
            return [str(error)]
        return []

    def _open_config(self, sealed: bytes) -> CollectionConfig:
        """Open settings and the profile they name, which may be replaced between the two reads."""
        for _ in range(_ATTEMPTS):
            config = self.vault.open_config(sealed)
            digest = config.scheme.profile if isinstance(config.scheme, Sketch) else None
            if digest is None:
                return config
            artefact = self.backend.artefact(PROFILE)
            try:
                if artefact is None:
                    raise AuthenticationError("the collection's profile is missing: it was removed")
                return replace(config, profile=self.vault.open_profile(artefact, digest))
            except AuthenticationError:
                before, sealed = sealed, self.backend.config()
                if sealed == before:
                    raise
        raise StaleConfigError("the collection's settings change all the time")

    @property
    def oversample(self) -> int:
        """Candidates per hit: this opening's choice, else the collection's."""
        return self._oversample or self.config.oversample

    @oversample.setter
    def oversample(self, candidates: int) -> None:
        self._oversample = candidates

    def pages(self, size: int, predicate: Predicate | None = None) -> Iterator[Rows]:
        """List rows, ascending, so many at a time. Raises StoreUnreachableError where the list does not advance."""
        after = 0
        while len(rows := self.backend.rows(predicate, after=after, limit=size)):
            if not after < rows[0] <= rows[-1]:
                raise StoreUnreachableError("the store lists its records out of order: it is damaged")
            after = int(rows[-1])
            yield rows

    def sample(self, limit: int, seed: int) -> npt.NDArray[np.float32]:
        """Open up to `limit` vectors drawn at random, (n, dim), in the order of their writes."""
        vectors = np.empty((0, self.config.dim), np.float32)
        for _ in range(_ATTEMPTS):
            rows = self.without(self.backend.rows(), self.vault.dead)
            if len(rows) > limit:
                rows = np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))
            found, vectors, _ = self.open_vectors(rows)
            if len(found) == len(rows):
                break  # else some were written anew after they were listed: look again
        return vectors

    def without(self, rows: Rows, versions: set[int]) -> Rows:
        """Leave out rows that the store keeps under these key versions."""
        if not len(rows) or versions.isdisjoint(by_version(self.backend.spaces()) if versions else ()):
            return rows
        known = self.backend.audit(rows)
        return rows[np.isin(rows, [row for row, space, _, _ in known if version_of(space) not in versions])]

    def key_versions(self) -> dict[str, int]:
        """Count records by key version."""
        return {str(version): n for version, n in by_version(self.backend.spaces()).items()}

    def open_vectors(
        self, rows: Rows, config: CollectionConfig | None = None
    ) -> tuple[Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Fetch and open exact vectors: (found rows in order, (m, dim) float32, (m, PREFIX) token and header).

        A cached copy that fails is read again from the records before anyone is accused.

        Args:
            rows: (n,) rows.
            config: the settings under which the rows were found; by default whatever they are now.

        Raises:
            AuthenticationError: wrong key, or a record was altered.
            StaleConfigError: the records were rewritten under other settings meanwhile; search again.
        """
        return self._opened(rows, *self.backend.vectors(rows), config)

    def nearest(
        self,
        probes: Probes,
        limit: int,
        predicate: Predicate | None,
        config: CollectionConfig,
    ) -> tuple[Nearest, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Fetch the candidates of queries and open their exact vectors: (candidates, vectors, tokens and headers).

        Raises what `open_vectors` does.
        """
        found = self.backend.nearest(probes, limit, predicate)
        found.rows, vectors, heads = self._opened(found.rows, found.rows, found.vectors, config)
        return found, vectors, heads

    def _opened(
        self, rows: Rows, found: Rows, envelopes: npt.NDArray[np.uint8], config: CollectionConfig | None
    ) -> tuple[Rows, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        try:
            return found, self._open(envelopes, config), envelopes[:, :PREFIX]
        except AuthenticationError:
            found, envelopes = self.backend.vectors(rows, source=True)
            opened = self._open(envelopes, config)
        log.warning("a cached sealed vector was damaged; the index cache is dropped and rebuilt from the records")
        self.backend.drop_cache()
        return found, opened, envelopes[:, :PREFIX]

    def _open(self, envelopes: npt.NDArray[np.uint8], config: CollectionConfig | None) -> npt.NDArray[np.float32]:
        under = config or self.config
        if not len(envelopes):
            return np.empty((0, under.dim), np.float32)
        if not self.vault.current(envelopes, under):
            now = self.refresh()
            if now is under:
                raise AuthenticationError("a record could not be authenticated")
            if config is not None or not self.vault.current(envelopes, now):
                raise StaleConfigError("the collection was rewritten under other settings meanwhile")
        return offload(len(envelopes), self.vault.open_vectors, envelopes)

    def open_payloads(
        self, rows: Rows, have: Mapping[int, bytes] | None = None
    ) -> tuple[Rows, list[bytes], list[bytes]]:
        """Fetch and open payloads: (found rows, payloads, PREFIX bytes of token and header each).

        Args:
            rows: (n,) rows.
            have: envelopes of some of them, already fetched.
        """
        known = have or {}
        here = [row for row in rows.tolist() if row in known]
        found, envelopes = np.array(here, np.int64), [known[row] for row in here]
        if len(here) < len(rows):
            more, fetched = self.backend.payloads(np.setdiff1d(rows, found) if here else rows)
            found, envelopes = np.concatenate([found, more]), envelopes + fetched
        opened = offload(len(envelopes), self.vault.open_payloads, envelopes)
        return found, opened, [envelope[:PREFIX] for envelope in envelopes]
