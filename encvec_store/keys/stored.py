"""A keyset's document in its storage: wrapped when it is written, unwrapped when it is read.

A wrapped document is canonical JSON, and reading compares it with its canonical form. So a flipped byte is always
noticed: it gives a JSON error, another header, or a failed authentication. A document that is not wrapped is stored
as it is.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import InputError, KeysetError, UriError
from ..runtime.urls import shown
from .protocol import NONE, Header, KeyWrapper, RenewsKeys
from .registry import PASSPHRASE, known, make_storage, make_wrapper, split

__all__ = ["FORMAT", "TENANTS_FORMAT", "UNWRAPPED_FORMAT", "URI_VARIABLE", "StoredKeyset"]

URI_VARIABLE = "ENCVEC_KEYSET"
"""The environment variable that holds the URI of the keyset, if none is given."""
FORMAT = "encvec-keyset-wrapped/1"
UNWRAPPED_FORMAT = "encvec-keyset/1"
TENANTS_FORMAT = "encvec-keyset/2"
"""With keys of tenants, which a reader of format 1 would lose at its next write."""
_FIELDS = {"format", "header", "nonce", "sealed", "wrapper"}
log = logging.getLogger("encvec_store")


@dataclass(frozen=True)
class _Wrapped:
    """The parts of a wrapped document."""

    wrapper: str
    header: dict[str, Any]
    nonce: bytes
    sealed: bytes


class StoredKeyset:
    """The document of one keyset: `create` or `load` it, then `save` it whenever it changes.

    A document names its wrapper, so `load` needs no hint. The name is checked:

    - If the caller named a wrapper, the document must have that one.
    - A document in clear is accepted only from a storage whose default is `none`, or if the caller named `none`.
      Otherwise whoever can write to the storage could put a keyset of their own there.
    - Any wrapper other than the storage's default and the passphrase must be named by the caller. An attacker may
      have a key of their own in the same service, and nothing must be encrypted under it because a file says so.
    """

    def __init__(
        self, uri: str | None = None, *, wrap: str | None = None, passphrase: str | bytes | None = None
    ) -> None:
        if uri is None:
            uri = os.environ.get(URI_VARIABLE)
        if uri is None or uri == "":
            raise UriError(f"give the URI of the keyset, which begins with {known()}, or set {URI_VARIABLE} to it")
        place, named = split(uri)
        if named is not None and wrap is not None and named != wrap:
            names = f"{shown(named)!r}, but wrap= is {shown(wrap)!r}"
            raise UriError(f"the keyset URI names the wrapper {names}: give one of them")
        self._storage = make_storage(place)
        self._wrap = named if wrap is None else wrap
        self._passphrase = passphrase
        self._opened: KeyWrapper | None = None
        if self._wrap is not None:
            self._opened = make_wrapper(self._wrap, passphrase)  # a mistyped name fails before anything is read
        self._key: tuple[str, bytes, Header] | None = None  # wrapper, key, header: a key is derived once
        self._clear = False
        self._content: bytes | None = None  # as it was read or written last
        self._stale = False
        place = shown(self._storage.uri)
        self.uri = place if self._wrap is None else f"{place}?wrap={shown(self._wrap)}"

    @property
    def by_service(self) -> bool:
        """True if a key service wraps the keyset that was created, loaded or rewrapped."""
        return bool(getattr(self._opened, "service", False))

    @property
    def lasting(self) -> bool:
        """True if a change outlives this process."""
        return self._storage.lasting

    @property
    def beside_data(self) -> bool:
        """True if whoever copies the store has the keyset, too."""
        return not self._storage.wrapper

    def is_changed(self) -> bool:
        """Return True if another process changed the keyset since it was read or written here; then `load` it."""
        if self._storage.read() != self._content:
            self._stale = True  # the storage takes it for seen: nothing may be written over it before it is loaded
        return self._stale

    def exists(self) -> bool:
        """Return True if there is a keyset."""
        return self._storage.exists()

    def wrapper(self, *, new: bool = False) -> str:
        """Return the wrapper's name, of the stored keyset or of a `new` one. Raises KeysetError."""
        if new or self._wrap is not None:
            return self._chosen()
        wrapped = self._parse(self._storage.read())
        return NONE if wrapped is None else wrapped.wrapper

    def create(self, document: bytes) -> None:
        """Store a new document. Raises KeysetError if there is one already."""
        name = self._chosen()
        self._check_beside_data(name)
        if self._passphrase is not None and name == NONE:
            raise InputError(
                f"{self.uri} would hold the keyset in clear, and not use the passphrase: leave passphrase= out, "
                'or pass wrap="passphrase"'
            )
        if self._storage.exists():  # early, before a key is derived; the storage checks again, atomically
            raise KeysetError(f"{self.uri} holds a keyset already: open it, or choose another URI")
        self._clear = name == NONE
        if name != NONE:
            self._key = (name, *self._new_key(self._open_wrapper(self._wrap or self._storage.wrapper)))
        content = self._wrapped(document)
        self._storage.create(content)
        self._content = content

    def load(self, *, held: bool = False) -> bytes:
        """Return the document. Raises KeysetError if it is missing, malformed or refused.

        Args:
            held: use the wrapping key that is in memory if it is still the right one, and ask nobody for it.
        """
        content = self._storage.read()
        document = self._opened_document(content, held)
        self._content, self._stale = content, False
        return document

    def refuse(self) -> None:
        """Take what was loaded for wrong: nothing may be written over it."""
        self._content, self._stale = None, True

    def _opened_document(self, content: bytes, held: bool) -> bytes:
        wrapped = self._parse(content)
        self._check_wrapper(NONE if wrapped is None else wrapped.wrapper)
        if wrapped is None:
            self._clear = True
            return content
        if held and self._key is not None and (self._key[0], self._key[2]) == (wrapped.wrapper, wrapped.header):
            key = self._key[1]
        else:
            key = self._recovered(self._open_wrapper(wrapped.wrapper), wrapped.header)
        try:
            document = AESGCM(key).decrypt(wrapped.nonce, wrapped.sealed, _head(wrapped.wrapper, wrapped.header))
        except InvalidTag:
            secret = "passphrase" if wrapped.wrapper == PASSPHRASE else "key"
            raise KeysetError(f"{self.uri}: wrong {secret}, or the keyset was altered") from None
        self._key = wrapped.wrapper, key, wrapped.header
        return document

    def save(self, document: bytes) -> None:
        """Replace the document that was created or loaded. The wrapper stays the same, an outdated key does not."""
        wrapper = self._opened
        if wrapper is not None and self._key is not None and _is_outdated(wrapper, self._key[2]):
            self._save_under(wrapper, document)
            log.warning("%s: its key was derived at a lower cost than is usual today; it is derived anew", self.uri)
        else:
            self._replace(document)

    def change_passphrase(self, document: bytes, passphrase: str | bytes) -> None:
        """Replace the document that was created or loaded, under another passphrase; all or nothing.

        Raises:
            KeysetError: something else than a passphrase wraps it, or it could not be written.
        """
        if self._key is None or self._key[0] != PASSPHRASE:
            raise KeysetError(f"{self.uri} is not wrapped by a passphrase, so there is none to change")
        wrapper = make_wrapper(PASSPHRASE, passphrase)
        if wrapper is not None:
            self._save_under(wrapper, document)
            self._opened, self._passphrase = wrapper, passphrase

    def rewrap(self, document: bytes, wrap: str, passphrase: str | bytes | None) -> None:
        """Replace the document that was created or loaded, under another wrapper; all or nothing.

        Raises:
            KeysetError: it could not be wrapped or written.
            UriError: the wrapper is unknown.
            InputError: a passphrase was given for another wrapper than `passphrase`.
        """
        wrapper = make_wrapper(wrap, passphrase)
        self._check_beside_data(wrap)
        if wrapper is None and passphrase is not None:
            raise InputError("the wrapper 'none' takes no passphrase: leave it out")
        self._save_under(wrapper, document, wrap.partition(":")[0])
        self._wrap, self._opened, self._passphrase = wrap, wrapper, passphrase
        self.uri = f"{shown(self._storage.uri)}?wrap={shown(wrap)}"

    def forget(self) -> None:
        """Drop the wrapping key. Loading finds it again."""
        self._key = None

    def _replace(self, document: bytes) -> None:
        if self._stale:
            raise KeysetError(f"{self.uri} was changed by another process: open it again")
        content = self._wrapped(document)
        self._storage.replace(content)
        self._content = content

    def _save_under(self, wrapper: KeyWrapper | None, document: bytes, name: str | None = None) -> None:
        """Store the document under a new key of a wrapper, or in clear. If that fails, the old key stays in use."""
        old = self._key, self._clear
        if wrapper is None:
            self._key, self._clear = None, True
        else:
            self._key = (name or (old[0][0] if old[0] else self._chosen()), *self._new_key(wrapper))
        try:
            self._replace(document)
        except BaseException:
            self._key, self._clear = old
            raise

    def _chosen(self) -> str:
        """Return the name of the wrapper for a new keyset."""
        return (self._wrap or self._storage.wrapper).partition(":")[0]

    def _check_beside_data(self, name: str) -> None:
        """Refuse what whoever copies the store could open, or guess at without having been told."""
        if self._storage.wrapper:
            return
        if not name:
            raise KeysetError(
                f"{self.uri} lies beside the data: name what wraps it, such as ?wrap=awskms:alias/vectors. Whoever"
                " copies the store can guess at a passphrase for as long as they like; if a long random one makes that"
                " hopeless, say ?wrap=passphrase"
            )
        if name == NONE:
            raise KeysetError(
                f"{self.uri} lies beside the data, so it must be wrapped: in clear it would protect nothing"
            )

    def _check_wrapper(self, found: str) -> None:
        """Refuse a wrapper that the caller cannot have meant; see the class."""
        if found == NONE and self._passphrase is not None:
            raise KeysetError(f"{self.uri} must be wrapped by the given passphrase, but is in clear")
        if self._wrap is not None and found != self._chosen():
            state = "in clear" if found == NONE else f"wrapped by {found!r}"
            raise KeysetError(f"{self.uri} must have the wrapper {self._chosen()!r}, but is {state}")
        if self._wrap is None and found == NONE != self._storage.wrapper:
            raise KeysetError(
                f"{self.uri} must be wrapped, but is in clear: someone who can write there may have replaced it. "
                'If you created it in clear, pass wrap="none", or add ?wrap=none to the URI'
            )
        if self._wrap is None and found not in (NONE, PASSPHRASE, self._storage.wrapper):
            raise KeysetError(
                f"{self.uri} is wrapped by {found!r}: if you chose that, pass wrap={found!r}, or add ?wrap= to the URI"
            )

    def _open_wrapper(self, name: str) -> KeyWrapper:
        if self._opened is None:
            self._opened = make_wrapper(self._wrap or name, self._passphrase)
        if self._opened is None:
            raise KeysetError(f"{self.uri} is malformed: {name!r} is not a wrapper")
        return self._opened

    def _new_key(self, wrapper: KeyWrapper) -> tuple[bytes, Header]:
        try:
            key, header = wrapper.new()
        except KeysetError as error:  # a wrapper does not know the URI
            raise type(error)(f"{self.uri}: {error}") from error.__cause__
        return _sized(key), json.loads(_canonical(header))  # as it will be read back: tuples become lists

    def _recovered(self, wrapper: KeyWrapper, header: Header) -> bytes:
        try:
            return _sized(wrapper.recover(header))
        except KeysetError as error:
            raise type(error)(f"{self.uri}: {error}") from error.__cause__

    def _wrapped(self, document: bytes) -> bytes:
        """Return the content to store, wrapped as it was created or loaded; never in clear by accident."""
        if self._key is None:
            if not self._clear:
                raise KeysetError(f"{self.uri} must be opened or created before it is changed")
            return document
        name, key, header = self._key
        nonce = os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, document, _head(name, header))
        fields = {"format": FORMAT, "wrapper": name, "header": header, "nonce": _text(nonce), "sealed": _text(sealed)}
        return _canonical(fields) + b"\n"

    def _parse(self, content: bytes) -> _Wrapped | None:
        """Split content into its parts; return None if it is in clear."""
        try:
            fields = json.loads(content)
            if fields["format"] in (UNWRAPPED_FORMAT, TENANTS_FORMAT):
                return None
            if fields["format"] != FORMAT or set(fields) != _FIELDS or _canonical(fields) + b"\n" != content:
                raise ValueError
            header, name = fields["header"], fields["wrapper"]
            nonce, sealed = _bytes(fields["nonce"]), _bytes(fields["sealed"])
            if type(header) is not dict or type(name) is not str or name in ("", NONE) or len(nonce) != 12:
                raise ValueError
            return _Wrapped(name, header, nonce, sealed)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise KeysetError(f"{self.uri} is damaged, or is no keyset of a known format") from None

    def __repr__(self) -> str:
        return f"StoredKeyset({self.uri!r})"


def _is_outdated(wrapper: object, header: Header) -> bool:
    return isinstance(wrapper, RenewsKeys) and wrapper.outdated(header)


def _sized(key: bytes) -> bytes:
    if type(key) is not bytes or len(key) != 32:
        raise KeysetError("a key wrapper must return a key of 32 bytes")
    return key


def _head(wrapper: str, header: Header) -> bytes:
    """Return the associated data: everything that is stored in clear except the nonce."""
    return _canonical({"format": FORMAT, "wrapper": wrapper, "header": header})


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    decoded = base64.b64decode(value, validate=True)
    if _text(decoded) != value:  # base64 can spell one value in several ways
        raise ValueError("base64")
    return decoded
