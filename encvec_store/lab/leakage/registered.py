"""The schemes of the registry as subjects: keyed and fitted by the code that a collection runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import Matrix
from ...maintenance import fitted, grown
from ...schemes import PER_DIMENSION, KeyedScheme, Profile, Scheme, scheme
from ...sealing import DEFAULT_OVERSAMPLE, CollectionConfig
from .algebra import Cells
from .protocol import Keyed

__all__ = ["Registered", "defaults"]


@dataclass(frozen=True)
class Registered:
    """A scheme of the registry, run as a store runs it.

    Args:
        scheme: as it is given to a collection, or as it is once fitted.
        profile: what it was fitted to.
        oversample: candidates re-ranked per hit.
    """

    scheme: Scheme
    profile: Profile | None = None
    oversample: int = DEFAULT_OVERSAMPLE

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Registered:
        """Build the scheme from its name and parameters; those left out or None are the collection's to choose."""
        return cls(scheme({name: value for name, value in spec.items() if value is not None}))

    def grown(self, records: int, sample: Matrix) -> Registered:
        """Return it as a collection fits it. Raises ProfileError for a sample that varies in too few directions."""
        if self.profile is not None or not self.scheme.needs_profile:
            return self
        found = fitted(_settings(self.scheme, sample.shape[1]), _enough(sample, self.scheme), records)
        return Registered(found.scheme, found.profile, found.oversample)

    def parameters(self) -> Mapping[str, Any]:
        """The scheme's own, but for what each key draws anew."""
        return {name: value for name, value in self.scheme.parameters().items() if name != "profile"}

    def keyed(self, key: int, profile: Matrix) -> Keyed:
        """Derive the scheme's keys from a root that belongs to the number."""
        root = hashlib.sha256(b"leakage lab root %d" % key).digest()
        built = self.grown(len(profile), profile)
        return _RegisteredKeyed(
            # the keys of all published measurements
            built.scheme.keyed(root, ("", "leakage"), profile.shape[1], built.profile),
            built.scheme.noise / 4,
            np.random.default_rng(key),
        )


def _settings(spec: Scheme | str | None, dim: int) -> CollectionConfig:
    """Return the settings of a new collection of unit vectors."""
    return CollectionConfig.build(
        dim=dim, metric_name="cosine", scheme_spec=spec, fields=None, max_norm=None, oversample=None
    )


def defaults(name: str, sample: Matrix, records: int) -> CollectionConfig:
    """Return the settings of a scheme by default: of `records` records like (m, d) unit vectors, when it is fitted."""
    config = _settings(name, sample.shape[1])
    return grown(config, _enough(sample, config.scheme), records)


def _enough(sample: Matrix, spec: Scheme) -> Matrix:
    """Repeat (m, d) vectors, each as often, until the scheme takes them for a profile: statistics stay the same."""
    k = spec.parameters().get("k")
    least = spec.least_records if k is None else PER_DIMENSION * k
    return np.tile(sample, (-(-least // len(sample)), 1)) if len(sample) < least else sample


@dataclass
class _RegisteredKeyed:
    scheme: KeyedScheme
    noise: float
    rng: np.random.Generator
    public: Callable[[Matrix], Matrix] | None = None
    sorts: Callable[[Matrix], Cells] | None = None

    def store(self, vectors: Matrix) -> Matrix:
        return self.spread(vectors)[0]

    def spread(self, vectors: Matrix) -> tuple[Matrix, Cells]:
        tokens = self.rng.integers(0, 256, (len(vectors), 16), dtype=np.uint8)
        return self.scheme.encrypt(vectors, tokens, vectors)[0], self.scheme.cells_of(tokens)

    def ask(self, queries: Matrix) -> Matrix:
        return self.scheme.encrypt_queries(queries)
