"""The store for asyncio. Every method of `Store` and `Collection` that may wait is a coroutine here.

async with ev.aio.connect("postgresql://...", keyset=keyset) as store:
    faces = await store.collection("faces", dim=512)
    hits = await faces.search(query, k=10)

A PostgreSQL store waits in the event loop, on psycopg's asyncio connections, and runs long computations in worker
threads. The other stores compute and read files, so every call of theirs runs in a worker thread.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar

from .collection import Collection
from .data.frames import ResultList
from .data.records import Record
from .errors import InputError
from .indexes.registry import waits_in_loop
from .keys.keyset import Keyset
from .runtime.concurrency import called_from, spawn
from .runtime.forks import generation
from .runtime.urls import as_url
from .store import Store, open_store

__all__ = ["AsyncCollection", "AsyncScroll", "AsyncStore", "Opening", "connect"]

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


class _Runner(Protocol):
    """Calls a function while the event loop goes on."""

    def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...


class _OfLoop:
    """Calls what may wait, from the event loop that the store was opened in; in a forked child, from its first."""

    def __init__(self, run: _Runner) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._born = generation()

    async def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        if self._born != generation():  # the parent's loop does not run here
            self._loop, self._born = loop, generation()
        if loop is not self._loop:
            raise InputError("the store belongs to the event loop that it was opened in; open one in each loop")
        with called_from(loop):
            return await self._run(fn, *args, **kwargs)


def _coroutine(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make the async twin of a method, with the same parameters, result and docstring."""
    return _made(method, lambda _, result: result)


def _made(
    method: Callable[Concatenate[S, P], T], turn: Callable[[Any, T], R]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Make the async twin of a method, which returns turn(self, result)."""

    @functools.wraps(method)
    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return turn(self, await self._call(method, self._of, *args, **kwargs))

    of_store = method.__qualname__.startswith(("Store.", "TenantKeys."))  # verbs stand in several classes
    owner = "Store" if of_store else "Collection"
    twin.__qualname__ = f"Async{owner}.{method.__name__}"
    twin.__module__ = __name__
    return twin


class AsyncCollection:
    """A `Collection` for asyncio. Get one from `AsyncStore.collection`.

    Any number of tasks may use it. A write is all or nothing, also if its task is cancelled, and it is durable when the
    coroutine returns. Until then, do not change the arrays that you passed. `progress` is called in the event loop
    of a PostgreSQL store, in a worker thread with the others.
    """

    def __init__(self, of: Collection, call: _Runner) -> None:
        self._of = of
        self._call = call

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._of.name

    @property
    def tenant(self) -> str:
        """The tenant that owns it; "" if there is none."""
        return self._of.tenant

    @property
    def dim(self) -> int:
        """The number of coordinates of a vector."""
        return self._of.dim

    @property
    def metric(self) -> str:
        """cosine, l2 or ip."""
        return self._of.metric

    upsert = _coroutine(Collection.upsert)
    update = _coroutine(Collection.update)
    search = _coroutine(Collection.search)
    recommend = _coroutine(Collection.recommend)
    explain = _coroutine(Collection.explain)
    get = _coroutine(Collection.get)
    delete = _coroutine(Collection.delete)
    count = _coroutine(Collection.count)
    index_vectors = _coroutine(Collection.index_vectors)
    calibrate = _coroutine(Collection.calibrate)
    refit = _coroutine(Collection.refit)
    change = _coroutine(Collection.change)
    rekey = _coroutine(Collection.rekey)
    maintain = _coroutine(Collection.maintain)
    watch_recall = _coroutine(Collection.watch_recall)
    verify = _coroutine(Collection.verify)
    stats = _coroutine(Collection.stats)
    flush = _coroutine(Collection.flush)

    def scroll(self, where: Mapping[str, Any] | None = None, *, include_vectors: bool = True) -> AsyncScroll:  # noqa: D102
        return AsyncScroll(self._scrolled(where, include_vectors))

    async def _scrolled(self, where: Mapping[str, Any] | None, include_vectors: bool) -> AsyncGenerator[Record, None]:
        pages = await self._call(self._of._pages, where, include_vectors=include_vectors)
        while (page := await self._call(next, pages, None)) is not None:
            for record in page:
                yield record

    scroll.__doc__ = Collection.scroll.__doc__

    def __repr__(self) -> str:
        return f"Async{self._of!r}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AsyncCollection cannot be pickled: connect where it is needed")


class AsyncScroll(AsyncIterator[Record]):
    """An iterator over records for asyncio, of which what is left becomes a table in memory."""

    def __init__(self, records: AsyncGenerator[Record, None]) -> None:
        self._records = records

    async def __anext__(self) -> Record:
        return await anext(self._records)

    async def aclose(self) -> None:
        """Read no further."""
        await self._records.aclose()

    async def _left(self) -> ResultList[Record]:
        return ResultList([record async for record in self])

    async def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` of all records that are left, as `ResultList.to_arrow` does."""
        return (await self._left()).to_arrow()

    async def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` of all records that are left, as `ResultList.to_pandas` does."""
        return (await self._left()).to_pandas()

    async def to_polars(self) -> Any:
        """Return a `polars.DataFrame` of all records that are left, as `ResultList.to_polars` does."""
        return (await self._left()).to_polars()


class AsyncStore:
    """A `Store` for asyncio. Close it, or use it in an `async with` statement. It belongs to one event loop."""

    def __init__(self, of: Store, run: _Runner) -> None:
        self._of = of
        self._call = _OfLoop(run)

    @property
    def url(self) -> str:
        """The URL of the store."""
        return self._of.url

    @property
    def keyset(self) -> Keyset:
        """The keys in use."""
        return self._of.keyset

    def _collection(self, made: Collection) -> AsyncCollection:
        return AsyncCollection(made, self._call)

    collection = _made(Store.collection, _collection)
    collections = _coroutine(Store.collections)
    rekey = _coroutine(Store.rekey)
    drop = _coroutine(Store.drop)
    drop_tenant = _coroutine(Store.drop_tenant)
    verify_names = _coroutine(Store.verify_names)
    add_tenant = _coroutine(Store.add_tenant)
    erase_tenant = _coroutine(Store.erase_tenant)
    close = _coroutine(Store.close)

    async def __aenter__(self) -> AsyncStore:
        """Enter an `async with` statement."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncStore({self.url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AsyncStore cannot be pickled: connect where it is needed")


class Opening:
    """What `connect` returns. Await it, or use it in an `async with` statement."""

    def __init__(self, url: str | os.PathLike[str], keyset: Keyset, options: Mapping[str, Any], **how: Any) -> None:
        self._given = (url, keyset, options)
        self._how = how
        self._store: AsyncStore | None = None

    async def _open(self) -> AsyncStore:
        in_loop = waits_in_loop(as_url(self._given[0]))
        run: _Runner = asyncio.to_thread
        if in_loop:
            run = spawn
        return AsyncStore(await run(open_store, *self._given, **self._how, in_loop=in_loop), run)

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        """Open the store."""
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        if self._store is not None:
            await self._store.close()


def connect(
    url: str | os.PathLike[str],
    *,
    keyset: Keyset,
    maintenance: str = "background",
    replica: bool = False,
    index_memory: int | None = None,
    reads: str | None = None,
    threat: str | None = None,
    cache: str | PathLike[str] | None = None,
    names: str | None = None,
    erasable: bool = False,
    **options: Any,
) -> Opening:
    """Open a store for asyncio. Await the result, or use it in an `async with` statement.

    Args:
        url: as for `encvec_store.connect`.
        keyset: the keys; see `Keyset.create` and `Keyset.open`.
        maintenance: as for `encvec_store.connect`.
        replica: as for `encvec_store.connect`.
        index_memory: as for `encvec_store.connect`.
        reads: as for `encvec_store.connect`.
        threat: as for `encvec_store.connect`.
        cache: as for `encvec_store.connect`.
        names: as for `encvec_store.connect`.
        erasable: as for `encvec_store.connect`.
        options: those of the store. `pool` is an open `psycopg_pool.AsyncConnectionPool`, `engine` an `AsyncEngine`
            over psycopg 3; neither is ever closed by us.

    Raises:
        UriError: the kind of store or an option is unknown.
        ConfigMismatchError: as for `encvec_store.connect`.
        AuthenticationError: as for `encvec_store.connect`.
        StoreUnreachableError: the store could not be opened.
    """
    how: dict[str, Any] = {"maintenance": maintenance, "replica": replica, "index_memory": index_memory}
    how |= {"reads": reads, "threat": threat, "cache": cache, "names": names, "erasable": erasable}
    return Opening(url, keyset, options, **how)
