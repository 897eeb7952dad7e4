"""The keys of one collection, by key version, derived once; imports crypto, config, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import KEY_VERSION, RecordCipher, Stamp, claims, config_key_version, key_version, key_versions
from ..crypto.prf import Bytes
from ..data.fields import Term
from ..data.spaces import space, spaces
from ..errors import AuthenticationError, KeyUnavailableError
from ..keys.keyset import KeyState, KeyVersion
from ..schemes import KeyedScheme
from ..schemes.device import CPU, Device
from ..schemes.profile import Profile
from ..waits import Lock, offload
from .config import CollectionConfig

__all__ = ["PROFILE", "Roots", "Vault"]

Matrix = npt.NDArray[np.float32]
PROFILE = "profile"
"""Name of the artefact that holds it."""
_BLINDED = 1024
"""Blind tokens kept."""


class Roots(Protocol):
    """Root keys by version: a `Keyset`, or a part of one."""

    @property
    def primary(self) -> int:
        """The version that encrypts."""
        ...

    @property
    def live(self) -> tuple[int, ...]:
        """The enabled versions, the primary first."""
        ...

    @property
    def held(self) -> tuple[int, ...]:
        """The versions whose roots are here."""
        ...

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All versions, without their roots."""
        ...

    def root(self, version: int, *, naming: bool = False) -> bytes:
        """Return a version's root. Raises KeyUnavailableError."""
        ...


class Vault:
    """Ciphers and keyed schemes of one collection.

    The keyset is asked for a key version at every use, so one that is disabled or destroyed stops working at
    once, though its subkeys may be cached.
    """

    def __init__(self, keyset: Roots, tenant: str, collection: str, device: Device = CPU) -> None:
        self._keyset = keyset
        self._device = device
        self._tenant = tenant
        self._collection = collection
        self._ciphers: dict[int, RecordCipher] = {}
        self._schemes: dict[tuple[int, object, int], KeyedScheme] = {}
        self._blinded: dict[tuple[int, str, bytes], bytes] = {}
        self._lock = Lock()

    @property
    def primary(self) -> int:
        """The key version that writes."""
        return self._keyset.primary

    @property
    def live(self) -> tuple[int, ...]:
        """The key versions that read, the primary first."""
        return self._keyset.live

    @property
    def dead(self) -> set[int]:
        """The key versions that open nothing: disabled or destroyed."""
        return {item.version for item in self._keyset.versions} - set(self._keyset.live)

    @property
    def destroyed(self) -> set[int]:
        """The key versions whose records are unreadable for good."""
        return {item.version for item in self._keyset.versions if item.state is KeyState.DESTROYED}

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All key versions, without their roots."""
        return self._keyset.versions

    def cipher(self, version: int) -> RecordCipher:
        """Return the record cipher of a key version. Raises KeyUnavailableError."""
        return self._cipher(version, self._keyset.root(version))

    def _cipher(self, version: int, root: bytes) -> RecordCipher:
        found = self._ciphers.get(version)
        if found is None:  # quickly made: no harm if two threads do
            found = self._ciphers.setdefault(version, RecordCipher(root, version, self._tenant, self._collection))
        return found

    def scheme(self, version: int, config: CollectionConfig) -> KeyedScheme:
        """Return the collection's scheme under a key version. Raises KeyUnavailableError."""
        root = self._keyset.root(version)
        place = (version, config.scheme, config.point_dim)
        found = self._schemes.get(place)
        if found is None:
            with self._lock:  # rotations of many dimensions take long to make
                found = self._schemes.get(place)
                if found is None:
                    made = (root, self._tenant, self._collection, config.point_dim, config.profile, self._device)
                    found = self._schemes[place] = offload(config.point_dim, config.scheme.keyed, *made)
        return found

    def probes(self, version: int, config: CollectionConfig, points: Matrix) -> dict[int, Matrix]:
        """Encrypt (q, point_dim) queries under a key version, for every space: (q, index_dim) each."""
        encrypted = offload(len(points), self.scheme(version, config).encrypt_queries, points)
        return {space(version, cell): part for cell, part in enumerate(encrypted)}

    def spaces(self, version: int, config: CollectionConfig, tokens: Bytes) -> npt.NDArray[np.int64]:
        """Return the spaces that records of (n, 16) tokens belong to: (n,)."""
        return spaces(version, self.scheme(version, config).cells_of(tokens))

    def seal_config(self, config: CollectionConfig) -> bytes:
        """Seal settings under the primary."""
        return self.cipher(self.primary).seal_config(config.to_json())

    def open_config(self, sealed: bytes) -> CollectionConfig:
        """Open settings. Raises AuthenticationError, KeyUnavailableError."""
        config = CollectionConfig.from_json(self.cipher(config_key_version(sealed)).open_config(sealed))
        return replace(config, sealed=sealed)

    def seal_artefacts(self, config: CollectionConfig) -> dict[str, bytes]:
        """Seal under the primary what belongs to the settings."""
        profile, cipher = config.profile, self.cipher(self.primary)
        return {} if profile is None else {PROFILE: cipher.seal_artefact(PROFILE, profile.digest, profile.to_bytes())}

    def open_profile(self, sealed: bytes, digest: str) -> Profile:
        """Open the profile of a digest. Raises AuthenticationError, KeyUnavailableError."""
        opened = self._cipher_of(config_key_version(sealed)).open_artefact(PROFILE, digest, sealed)
        return Profile.from_bytes(opened)

    def open_vectors(self, envelopes: Bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Open (n, size) vector envelopes, whichever key versions they are under. Raises AuthenticationError."""
        alike = key_version(envelopes)
        if alike is not None:
            return self._cipher_of(alike).open_vectors(envelopes)
        versions, opened = key_versions(envelopes), None
        for version in np.unique(versions):
            chosen = versions == version
            part = self._cipher_of(int(version)).open_vectors(envelopes[chosen])
            opened = np.empty((len(envelopes), part.shape[1]), np.float32) if opened is None else opened
            opened[chosen] = part
        return opened if opened is not None else np.empty((0, 0), np.float32)

    def stamp(self, version: int, config: CollectionConfig) -> Stamp:
        """Return what the headers of records of these settings and key version begin with."""
        return Stamp(config.scheme.number, config.revision, version, config.precision)

    def current(self, envelopes: Bytes, config: CollectionConfig) -> bool:
        """Say whether (n, size) envelopes were all written under these settings."""
        return claims(envelopes, self.stamp(0, config))

    def open_payload(self, envelope: bytes) -> bytes:
        """Open a payload envelope, whichever key version it is under. Raises AuthenticationError."""
        return self.open_payloads([envelope])[0]

    def open_payloads(self, envelopes: Sequence[bytes]) -> list[bytes]:
        """Open payload envelopes, whichever key versions they are under. Raises AuthenticationError."""
        versions = {envelope[KEY_VERSION] for envelope in envelopes}
        if any(len(version) < 4 for version in versions):
            raise AuthenticationError("a record could not be authenticated")
        ciphers = {version: self._cipher_of(int.from_bytes(version, "big")) for version in versions}
        return [ciphers[envelope[KEY_VERSION]].open_payload(envelope) for envelope in envelopes]

    def _cipher_of(self, version: int) -> RecordCipher:
        """Return the cipher that a stored record claims: a number no keyset knows is a forgery or a wrong key."""
        try:
            return self.cipher(version)
        except KeyUnavailableError:
            if version in {item.version for item in self.versions}:
                raise
            raise AuthenticationError("a record could not be authenticated") from None

    def blind_terms(self, field: str, value: bytes) -> tuple[Term, ...]:
        """Return the terms of a blind value under every live key version."""
        return tuple(Term("token", self._blind(version, field, value)) for version in self.live)

    def _blind(self, version: int, field: str, value: bytes) -> bytes:
        """Return a blind token, mostly from memory: filters repeat, and the store is told every one."""
        cipher, asked = self.cipher(version), (version, field, value)
        found = self._blinded.get(asked)
        if found is None:
            found = cipher.blind_tokens([(field, value)])[0]
            if len(self._blinded) >= _BLINDED:
                self._blinded.clear()
            self._blinded[asked] = found
        return found

    def tokens(self, ids: Sequence[str], *, held: bool = False) -> dict[int, Bytes]:
        """Return the record tokens of ids by key version, the primary first.

        Args:
            ids: n ids.
            held: under disabled versions too: for what replaces and deletes, not for what opens.
        """
        versions = self._keyset.held if held else self.live
        return {v: self._cipher(v, self._keyset.root(v, naming=True)).tokens(ids) for v in versions}

    def tag(self, message: bytes) -> bytes:
        """Tag a description of index files (the backend's CacheAuthenticator)."""
        return self.primary.to_bytes(4, "big") + self.cipher(self.primary).cache_tag(message)

    def check(self, message: bytes, tag: bytes) -> bool:
        """Say whether a tag is ours (the backend's CacheAuthenticator)."""
        version = int.from_bytes(tag[:4], "big")
        return version in self.live and self.cipher(version).is_cache_tag(message, tag[4:])

    def outlived(self, tag: bytes) -> bool:
        """Say whether a tag claims a disabled or destroyed key version (the backend's CacheAuthenticator)."""
        return int.from_bytes(tag[:4], "big") in self.dead
