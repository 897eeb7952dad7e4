"""The keys of one collection, by key version. Each is derived once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..crypto.blobs import BlobCipher, blob_key_version, settings_head
from ..crypto.envelope import KEY_VERSION, Context, RecordCipher, key_version, key_versions
from ..crypto.labels import Purpose
from ..crypto.read_cache import ReadCacheCipher
from ..crypto.segments import SegmentCipher, segment_key_version
from ..data.arrays import Bytes, Matrix
from ..data.fields import Term
from ..data.ids import Id
from ..data.records import decode_payload
from ..errors import AuthenticationError
from ..keys.keyset import KeyState, KeyVersion
from ..keys.lifetime import KeyHolder
from ..runtime.concurrency import Lock, offload
from ..schemes import KeyedScheme
from ..schemes.device import CPU, Device
from ..schemes.profile import Profile
from ..storage.protocol import Blob, EncryptedBatch
from .codec import Decoded, RecordCodec
from .config import CollectionConfig
from .roots import Roots

__all__ = ["CHANGE", "INDEX", "PROFILE", "Keyring"]

PROFILE = "profile"
"""Name of the blob that holds the profile."""
INDEX = "index"
"""Beginning of the names of blobs that hold a sealed index: `index.<key version>`, `index.<key version>.<segment>`."""
CHANGE = "change"
"""Beginning of the names of blobs of a change of scheme that is under way."""
_BLINDED = 1024
"""Size of the cache of blind tokens."""


class Keyring:
    """Codecs and ciphers of one collection, for every key version.

    Every use asks the keyset for the key version, so a version that is disabled or destroyed stops working at once,
    even if its subkeys are cached.

    Args:
        keyset: the root keys.
        tenant: the collection's tenant.
        collection: its name.
        incarnation: its 16 random bytes; empty for a mapped column, which has none.
        device: where records are encrypted.
    """

    def __init__(self, keyset: Roots, tenant: str, collection: str, incarnation: bytes, device: Device = CPU) -> None:
        self._keyset = keyset
        self._device = device
        self._context: Context = (tenant, collection, incarnation)
        self._ciphers: dict[int, RecordCipher] = {}
        self._blobs: dict[int, BlobCipher] = {}
        self._segments: dict[tuple[int, Purpose], SegmentCipher] = {}
        self._schemes: dict[tuple[int, object, int], KeyedScheme] = {}
        self._codecs: dict[int, tuple[CollectionConfig, RecordCodec]] = {}
        self._blinded: dict[tuple[int, str, bytes], bytes] = {}
        self._lock = Lock()
        keyset.watch(self)

    def forget(self) -> None:
        """Drop all subkeys. The next use derives them again."""
        for derived in (self._ciphers, self._blobs, self._segments, self._schemes, self._codecs, self._blinded):
            derived.clear()

    def until_erased(self, holder: KeyHolder) -> None:
        """Have `holder.forget()` called when the tenant is erased: it holds what was opened with these keys."""
        self._keyset.until_erased(holder)

    @classmethod
    def of_settings(cls, sealed: bytes, keyset: Roots, tenant: str, collection: str, device: Device = CPU) -> Keyring:
        """Return the keyring of the collection with these sealed settings. Raises AuthenticationError."""
        return cls(keyset, tenant, collection, settings_head(sealed)[1], device)

    # key versions

    @property
    def primary(self) -> int:
        """The key version that encrypts."""
        return self._keyset.primary

    @property
    def live(self) -> tuple[int, ...]:
        """The key versions that open records, the primary first."""
        return self._keyset.live

    @property
    def dead(self) -> set[int]:
        """The key versions that open nothing: they are disabled or destroyed."""
        return {item.version for item in self._keyset.versions} - set(self._keyset.live)

    @property
    def destroyed(self) -> set[int]:
        """The key versions whose records can never be read again."""
        return {item.version for item in self._keyset.versions if item.state is KeyState.DESTROYED}

    @property
    def versions(self) -> tuple[KeyVersion, ...]:
        """All key versions, without their roots."""
        return self._keyset.versions

    # records

    def codec(self, version: int, config: CollectionConfig) -> RecordCodec:
        """Return the codec of a key version for these settings. Raises KeyUnavailableError."""
        root = self._keyset.root(version)
        held = self._codecs.get(version)
        if held is None or held[0] is not config:
            codec = RecordCodec(self._cipher(version, root), self._scheme(version, root, config), config)
            held = self._codecs[version] = config, codec
        return held[1]

    def seal(
        self,
        config: CollectionConfig,
        ids: Sequence[Id],
        vectors: Matrix,
        payloads: Sequence[bytes],
        metadata: Sequence[Mapping[str, Any]],
    ) -> EncryptedBatch:
        """Encrypt n checked records under the primary key version; see `RecordCodec.seal`.

        The same write removes records of these ids under other key versions.
        """
        batch = self.codec(self.primary, config).seal(ids, vectors, payloads, metadata)
        others = [version for version in self._keyset.held if version != self.primary]
        batch.retired = [row.tobytes() for version in others for row in self._names(version, ids)]
        return batch

    def open_vectors(self, envelopes: Bytes) -> Matrix:
        """Open (n, size) vector envelopes of any key versions: (n, dim). Raises AuthenticationError."""
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

    def open_payloads(self, envelopes: Sequence[bytes]) -> list[Decoded]:
        """Open payload envelopes of any key versions. Raises AuthenticationError."""
        claimed = [envelope[KEY_VERSION] for envelope in envelopes]
        versions = set(claimed)
        if any(len(version) < 4 for version in versions):
            raise AuthenticationError("a record could not be authenticated")
        opened: list[bytes] = [b""] * len(envelopes)
        for version in versions:
            cipher = self._cipher_of(int.from_bytes(version, "big"))
            if len(versions) == 1:
                opened = cipher.open_payloads(envelopes)
                break
            at = [place for place, other in enumerate(claimed) if other == version]
            for place, content in zip(at, cipher.open_payloads([envelopes[place] for place in at]), strict=True):
                opened[place] = content
        return list(map(decode_payload, opened))

    def are_authentic(self, version: int, envelopes: Bytes, payload: bytes) -> bool:
        """Return True unless a vector envelope or a payload, claiming a disabled key version, is a forgery.

        What is in them is not returned. Of a destroyed version nothing can be said: True.
        """
        if version in self.destroyed:
            return True
        cipher = self._cipher(version, self._keyset.root(version, naming=True))
        try:
            cipher.open_vectors(envelopes)
            cipher.open_payloads([payload])
        except AuthenticationError:
            return False
        return True

    def tokens(self, ids: Sequence[Id], *, held: bool = False) -> dict[int, Bytes]:
        """Return the record tokens of ids by key version, the primary first.

        Args:
            ids: n ids.
            held: also under disabled versions. Used to replace and delete records, not to open them.
        """
        return {version: self._names(version, ids) for version in (self._keyset.held if held else self.live)}

    def blind_terms(self, field: str, value: bytes) -> tuple[Term, ...]:
        """Return the terms of a blind value under every live key version."""
        return tuple(Term("token", self._blind(version, field, value)) for version in self.live)

    # settings and blobs

    def is_of(self, sealed: bytes) -> bool:
        """Return True if sealed settings claim this incarnation."""
        return settings_head(sealed)[1] == self._context[2]

    def seal_config(self, config: CollectionConfig) -> bytes:
        """Seal settings under the primary."""
        return self._blob_cipher(self.primary).seal_settings(config.to_json())

    def open_config(self, sealed: bytes) -> CollectionConfig:
        """Open settings. Raises AuthenticationError, KeyUnavailableError."""
        version, incarnation = settings_head(sealed)
        if not self.is_of(sealed):
            raise AuthenticationError("the collection's settings are those of another collection: they were replaced")
        config = CollectionConfig.from_json(self._blob_cipher(version).open_settings(sealed), incarnation)
        return replace(config, sealed=sealed)

    def is_current(self, sealed: bytes) -> bool:
        """Return True if sealed settings are under the primary."""
        return settings_head(sealed)[0] == self.primary

    def seal_blobs(self, config: CollectionConfig) -> dict[str, Blob | None]:
        """Seal the blobs of these settings under the primary. A blob that must be removed is None."""
        profile, version = config.profile, self.primary
        if profile is None:
            return {PROFILE: None}
        sealed = self._blob_cipher(version).seal_blob(PROFILE, 0, profile.digest, profile.to_bytes())
        return {PROFILE: Blob(version, sealed)}

    def open_profile(self, sealed: bytes, digest: str) -> Profile:
        """Open the profile that has this digest. Raises AuthenticationError, KeyUnavailableError."""
        cipher = self._blob_cipher(self._known(blob_key_version(sealed)))
        return Profile.from_bytes(cipher.open_blob(PROFILE, 0, digest, sealed))

    # the sealed index

    def seal_segment(
        self, version: int, name: str, part: int, parts: int, count: int, content: bytes | memoryview
    ) -> Blob:
        """Seal a part of a segment under a key version; see `SegmentCipher.seal`. Raises KeyUnavailableError."""
        return Blob(version, self._segment_cipher(version).seal(name, part, parts, count, content))

    def open_segment(
        self, name: str, part: int, parts: int, count: int, sealed: bytes, out: Bytes | None = None
    ) -> Bytes:
        """Open a part of a segment; see `SegmentCipher.open`. The segment's name says its key version.

        Raises AuthenticationError, KeyUnavailableError.
        """
        version = self._known(segment_key_version(sealed))
        if name.split(".")[:2] != [INDEX, str(version)]:
            raise AuthenticationError("a part of the sealed index could not be authenticated")
        return self._segment_cipher(version).open(name, part, parts, count, sealed, out)

    # a change of scheme

    def seal_change(self, name: str, content: bytes | memoryview) -> Blob:
        """Seal a part of a change of scheme that is under way, under the primary."""
        version = self.primary
        return Blob(version, self._segment_cipher(version, Purpose.CHANGE).seal(name, 0, 1, 0, content))

    def open_change(self, name: str, sealed: bytes) -> Bytes:
        """Open what was sealed under this name and the primary: (n,) uint8. Raises AuthenticationError."""
        return self._segment_cipher(self.primary, Purpose.CHANGE).open(name, 0, 1, 0, sealed)

    def read_cache(self, version: int) -> ReadCacheCipher:
        """Return the cipher of a local cache of sealed records. Raises AuthenticationError, KeyUnavailableError."""
        return ReadCacheCipher(self._keyset.root(self._known(version)), version, self._context)

    def tag(self, message: bytes) -> bytes:
        """Return the tag of a description of index files."""
        return self.primary.to_bytes(4, "big") + self._cipher_of(self.primary).cache_tag(message)

    def check(self, message: bytes, tag: bytes) -> bool:
        """Return True if a tag is ours."""
        version = int.from_bytes(tag[:4], "big")
        return version in self.live and self._cipher_of(version).is_cache_tag(message, tag[4:])

    def outlived(self, tag: bytes) -> bool:
        """Return True if a tag claims a disabled or destroyed key version."""
        return int.from_bytes(tag[:4], "big") in self.dead

    # subkeys

    def _known(self, version: int) -> int:
        """Check a key version that stored bytes claim. Raises AuthenticationError if the keyset has no such version."""
        if version not in {item.version for item in self.versions}:
            raise AuthenticationError("a record could not be authenticated")
        return version

    def _cipher_of(self, version: int) -> RecordCipher:
        known = version if version in self._ciphers else self._known(version)  # a keyset never loses a version
        return self._cipher(known, self._keyset.root(known))

    def _cipher(self, version: int, root: bytes) -> RecordCipher:
        found = self._ciphers.get(version)
        if found is None:  # cheap to create, so two threads may both do it
            found = self._ciphers.setdefault(version, RecordCipher(root, version, self._context))
        return found

    def _blob_cipher(self, version: int) -> BlobCipher:
        root = self._keyset.root(version)
        found = self._blobs.get(version)
        if found is None:
            found = self._blobs.setdefault(version, BlobCipher(root, version, self._context))
        return found

    def _segment_cipher(self, version: int, purpose: Purpose = Purpose.INDEX) -> SegmentCipher:
        root = self._keyset.root(version)
        found = self._segments.get((version, purpose))
        if found is None:
            made = SegmentCipher(root, version, self._context, purpose)
            found = self._segments.setdefault((version, purpose), made)
        return found

    def _scheme(self, version: int, root: bytes, config: CollectionConfig) -> KeyedScheme:
        place = (version, config.scheme, config.point_dim)
        found = self._schemes.get(place)
        if found is None:
            with self._lock:  # rotations of many dimensions take long to draw
                found = self._schemes.get(place)
                if found is None:
                    made = (root, self._context, config.point_dim, config.profile, self._device)
                    found = self._schemes[place] = offload(config.point_dim, config.scheme.keyed, *made)
        return found

    def _names(self, version: int, ids: Sequence[Id]) -> Bytes:
        return self._cipher(version, self._keyset.root(version, naming=True)).tokens(ids)

    def _blind(self, version: int, field: str, value: bytes) -> bytes:
        """Return a blind token, from the cache if it can: filters repeat."""
        cipher, asked = self._cipher_of(version), (version, field, value)
        found = self._blinded.get(asked)
        if found is None:
            found = cipher.blind_tokens([(field, value)])[0]
            if len(self._blinded) >= _BLINDED:
                self._blinded.clear()
            self._blinded[asked] = found
        return found
