"""What every adapter needs of a collection: its verbs, at once or awaited, and the ids of all its records."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, TypeVar

from .. import Collection
from ..aio import AsyncCollection
from ..errors import InputError

__all__ = ["Calls", "Steps"]

T = TypeVar("T")
Steps = Generator[tuple[str, dict[str, Any]], Any, T]
"""A method of a framework, written once: it yields verbs with their arguments, and is sent what they return."""

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

    def take(self, steps: Steps[T]) -> T:
        """Take the steps of a method, one after the other. The verb `records` is `scroll` as a list."""
        answer: Any = None
        try:
            verb, options = next(steps)
            while True:
                try:
                    answer = self.records(**options) if verb == "records" else self.now(verb, **options)
                except Exception as error:
                    verb, options = steps.throw(error)
                else:
                    verb, options = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    async def take_later(self, steps: Steps[T]) -> T:
        """Take the steps of a method, while the event loop goes on."""
        answer: Any = None
        try:
            verb, options = next(steps)
            while True:
                try:
                    call = self.records_later(**options) if verb == "records" else self.wait(verb, **options)
                    answer = await call
                except Exception as error:
                    verb, options = steps.throw(error)
                else:
                    verb, options = steps.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result

    def records(self, **options: Any) -> list[Any]:
        """Return what `scroll` yields, as a list."""
        return list(self.now("scroll", **options))

    async def records_later(self, **options: Any) -> list[Any]:
        """Return what `scroll` yields, as a list, while the event loop goes on."""
        if isinstance(self.of, AsyncCollection):
            return [record async for record in self.of.scroll(**options)]
        return await asyncio.to_thread(self.records, **options)

    def ids(self) -> list[Any]:
        """Return the ids of all records."""
        return [record.id for record in self.records(include_vectors=False)]

    async def ids_later(self) -> list[Any]:
        """Return the ids of all records, while the event loop goes on."""
        return [record.id for record in await self.records_later(include_vectors=False)]
