"""Calls of collections, told to an observer if there is one: `integrations.opentelemetry`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

__all__ = ["Observer", "observe", "observed"]

F = TypeVar("F", bound=Callable[..., Any])


class Observer(Protocol):
    """Does a call of an operation on a collection, and returns its result."""

    def __call__(self, operation: str, collection: str, size: int | None, call: Callable[[], Any]) -> Any:
        """Call `call`. `size` is how many ids it names, if it names any."""


_observer: Observer | None = None


def observe(observer: Observer | None) -> None:
    """Tell an observer of all calls from now on, in place of the one before; None tells nobody."""
    global _observer
    _observer = observer


def observed(method: F) -> F:
    """Have a method of a collection told to the observer."""

    @functools.wraps(method)
    def told(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if _observer is None:
            return method(self, *args, **kwargs)
        ids: Any = kwargs.get("ids", args[0] if args and method.__name__ != "search" else None)
        size = len(ids) if hasattr(ids, "__len__") and not isinstance(ids, str) else None
        return _observer(method.__name__, self.name, size, functools.partial(method, self, *args, **kwargs))

    return cast(F, told)
