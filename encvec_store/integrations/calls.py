"""What every adapter needs of a collection: its verbs, at once or awaited, and the ids of all its records."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import Collection
from ..aio import AsyncCollection
from ..errors import InputError

__all__ = ["Calls"]

AnyCollection = Collection | AsyncCollection


class Calls:
    """Calls the verbs of a collection for a framework that has two versions of every method.

    An `AsyncCollection` is awaited in the caller's event loop. A `Collection` answers an awaited call from a worker
    thread. There is no event loop of our own.
    """

    def __init__(self, collection: AnyCollection) -> None:
        if not isinstance(collection, AnyCollection):
            raise InputError(
                f"collection must be a Collection or an AsyncCollection, got {type(collection).__name__}: use"
                " store.collection(name)"
            )
        self.of = collection

    def now(self, verb: str, *args: Any, **options: Any) -> Any:
        """Call a verb. Raises InputError if the collection can only be awaited."""
        if isinstance(self.of, AsyncCollection):
            raise InputError(
                "the collection is one of an async store: await the async methods, or give a Collection of"
                " encvec_store.connect(...)"
            )
        return getattr(self.of, verb)(*args, **options)

    async def wait(self, verb: str, *args: Any, **options: Any) -> Any:
        """Call a verb and wait for it, while the event loop goes on."""
        if isinstance(self.of, AsyncCollection):
            return await getattr(self.of, verb)(*args, **options)
        return await asyncio.to_thread(getattr(self.of, verb), *args, **options)

    def ids(self) -> list[Any]:
        """Return the ids of all records."""
        return [record.id for record in self.now("scroll", include_vectors=False)]

    async def ids_later(self) -> list[Any]:
        """Return the ids of all records, while the event loop goes on."""
        if isinstance(self.of, AsyncCollection):
            return [record.id async for record in self.of.scroll(include_vectors=False)]
        return await asyncio.to_thread(self.ids)
