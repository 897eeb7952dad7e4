"""What wrappers by a key service share: a random key, its bound context, retries, and errors of ours.

A wrapper's URI is `name:KEY`, or `name:KEY&context=TEXT`, perhaps with more options. The header holds the wrapped key
and the *context*: what it is for (a keyset), a random name, and the caller's text. The service gets the context beside
the key and refuses to unwrap under another one; where a service cannot do that, a digest of it is wrapped with the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import json
import logging
import os
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import ClassVar, TypeVar

from ...errors import (
    KeyContextError,
    KeyServiceError,
    KeyServiceUnreachableError,
    KeysetError,
    KeyThrottledError,
    UriError,
)
from ...runtime.concurrency import sleep
from ..protocol import Header

__all__ = ["TIMEOUT", "Context", "ServiceWrapper", "digest_of", "encoded", "hushed", "need", "unreachable"]

T = TypeVar("T")
Context = Mapping[str, str]
TIMEOUT = 10.0
"""Seconds that one request may take."""
_PAUSES = (0.1, 0.3, 0.9, 2.0)
"""Seconds between attempts while a service says that it has too many requests."""
_PURPOSE = "encvec-keyset"
_LONGEST = 128
_FIELDS = {"context", "wrapped"}


class ServiceWrapper(ABC):
    """Wraps a random key by a key service. A subclass says how, for one service."""

    name: ClassVar[str]
    """The wrapper's name in URIs."""
    key_is: ClassVar[str]
    """What must follow the name, for messages."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Options beside `context` that may follow the key."""
    extra: ClassVar[tuple[str, ...]] = ()
    """Names of fields of the header beside those of all services."""
    service = True
    """Keys that it unwrapped are dropped after their lifetime."""

    def __init__(self, rest: str, passphrase: str | bytes | None = None) -> None:
        key, *options = rest.split("&")
        given = dict(option.split("=", 1) for option in options if "=" in option)
        if not key or len(given) < len(options) or not given.keys() <= {"context", *self.options}:
            known = " ".join(f"[&{name}=...]" for name in sorted({"context", *self.options}))
            raise UriError(f"the wrapper must be {self.name}:{self.key_is} {known}, got {self.name}:{rest}")
        if passphrase is not None:
            raise UriError(f"the wrapper {self.name!r} takes no passphrase: leave passphrase= out")
        self.key, self.given = key, given
        self._context = given.get("context", "")
        if len(self._context) > _LONGEST or not self._context.isprintable():
            raise UriError(f"the context of a keyset must have at most {_LONGEST} printable characters")
        self.check()

    def check(self) -> None:  # noqa: B027 - most services have nothing to check
        """Check `key` and `given`, without asking the service. Raises UriError."""

    @abstractmethod
    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        """Return the wrapped key, and what else its header must hold: the fields that `extra` names."""

    @abstractmethod
    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        """Return the key that was wrapped, or anything else if the context differs."""

    @abstractmethod
    def failure(self, error: Exception) -> KeysetError | None:
        """Return what an error of the service means; None if it is a fault of ours."""

    def new(self) -> tuple[bytes, Header]:
        """Draw a key and have it wrapped."""
        key = os.urandom(32)
        context = {"purpose": _PURPOSE, "keyset": os.urandom(16).hex()}
        if self._context:
            context["context"] = self._context
        wrapped, more = self._ask(lambda: self.wrap(key, context))
        return key, {"context": context, "wrapped": base64.b64encode(wrapped).decode(), **more}

    def recover(self, header: Header) -> bytes:
        """Have the key of a header unwrapped."""
        if set(header) != _FIELDS | set(self.extra):
            raise KeysetError("its header is malformed")
        context, more = header["context"], {name: header[name] for name in self.extra}
        if type(context) is not dict or not all(type(item) is str for item in (*context.values(), *more.values())):
            raise KeysetError("its header is malformed")
        if context.get("purpose") != _PURPOSE or context.get("context", "") != self._context:
            there = f"has the context {context.get('context', '')!r}" if "context" in context else "has none"
            raise KeyContextError(f"it must be wrapped in the context {self._context!r}, but {there}")
        try:
            wrapped = base64.b64decode(header["wrapped"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise KeysetError("its header is malformed") from None
        key = self._ask(lambda: self.unwrap(wrapped, context, more))
        if len(key) != 32:
            raise KeyContextError(f"{self.name} did not unwrap a key of 32 bytes: it was wrapped by something else")
        return key

    def _ask(self, call: Callable[[], T]) -> T:
        """Ask the service, again if it has too many requests."""
        for pause in _PAUSES:
            answer = self._once(call)
            if not isinstance(answer, KeyThrottledError):
                break
            sleep(pause * (0.5 + random.random()))  # noqa: S311 - so that many processes do not come back at once
        else:
            answer = self._once(call)
        if isinstance(answer, KeysetError):
            # not raised where it was caught: frames and errors of a client library may show a key or a credential
            raise answer
        return answer

    def _once(self, call: Callable[[], T]) -> T | KeysetError:
        """Ask the service. Return its answer or our error."""
        try:
            return call()
        except KeysetError as error:
            return type(error)(str(error))
        except Exception as error:
            return self.failure(error) or KeyServiceError(f"{self.name} failed with {type(error).__name__}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"


def need(module: str, extra: str) -> ModuleType:
    """Import a client library. Raises KeysetError, which names the extra of this package that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0] if error.name is None else error.name
        raise KeysetError(f"{name} is not installed: pip install 'encvec-store[{extra}]'") from None


@contextmanager
def hushed(*libraries: str) -> Iterator[None]:
    """Drop what these libraries log in this thread below WARNING: at DEBUG some log requests and answers, with the key.

    Make the client first, so that its modules are imported and their loggers are there.
    """
    here = threading.get_ident()

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or record.thread != here

    known = [name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in libraries]
    loggers = [logging.getLogger(name) for name in known]
    for logger in loggers:
        logger.addFilter(passes)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(passes)


def encoded(context: Context) -> bytes:
    """Return the bytes of a context, for services that take bytes as associated data."""
    return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()


def digest_of(context: Context) -> bytes:
    """Return 32 bytes that stand for a context, to be wrapped with the key where a service takes no associated data."""
    return hashlib.sha256(encoded(context)).digest()


def unreachable(name: str, error: Exception) -> KeyServiceUnreachableError:
    """Return the error for a service that does not answer."""
    return KeyServiceUnreachableError(f"{name} does not answer ({type(error).__name__})")
