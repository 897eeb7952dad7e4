"""MCP: the collections of a store as tools of a server, for assistants that speak the Model Context Protocol.

    from encvec_store.integrations.mcp import make_server

    make_server(store, embed=embed).run()  # over stdin and stdout, as assistants start it

Needs the extra `mcp`.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError as error:
    raise ImportError(f"this needs the MCP SDK ({error}): pip install 'encvec-store[mcp]'") from None

from .. import Store
from ..aio import AsyncStore
from ..errors import EncvecError, InputError
from .calls import Calls

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["make_server"]

Embed = Callable[[str], Sequence[float]]
_MOST = 100
"""Records that a tool returns at most."""


def make_server(
    store: Store | AsyncStore,
    *,
    embed: Embed | None = None,
    tenant: str = "",
    collections: Collection[str] | None = None,
    writes: bool = False,
    name: str = "encvec_store",
) -> MCPServer:
    """Make an MCP server with the tools `collections`, `search` and `get`. Its `run()` serves stdin and stdout.

    What a tool returns is read by the model behind the assistant, in plaintext.

    Args:
        store: whose collections; none is ever created. With an `AsyncStore`, run the server in the event loop that the
            store was opened in, by `run_stdio_async()`.
        embed: makes a vector of a text, (dim,). Without it, searches take vectors only.
        tenant: only the collections of this tenant.
        collections: only those of these names.
        writes: if True, there are `upsert` and `delete` too.
        name: what the server calls itself.
    """
    if not isinstance(store, Store | AsyncStore):
        raise InputError(f"store must be a Store or an AsyncStore, got {type(store).__name__}")
    tools = _Tools(store, embed, tenant, None if collections is None else frozenset(collections))
    server = MCPServer(name, instructions="Search texts that are kept encrypted. Begin with the tool `collections`.")
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for read in (tools.collections, tools.search, tools.get):
        server.add_tool(read, annotations=reading)
    if writes:
        changing = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
        for write in (tools.upsert, tools.delete):
            server.add_tool(write, annotations=changing)
    return server


class _Tools:
    """The tools. Their docstrings are what the model reads."""

    def __init__(self, store: Store | AsyncStore, embed: Embed | None, tenant: str, names: frozenset[str] | None):
        self._store, self._embed, self._tenant, self._names = store, embed, tenant, names

    async def collections(self) -> list[dict[str, Any]]:
        """List the collections: name, number of records, dimension of vectors, metric."""
        with _told():
            if isinstance(self._store, AsyncStore):
                found = await self._store.collections(self._tenant)
            else:
                found = await asyncio.to_thread(self._store.collections, self._tenant)
            listed = []
            for _, name in found:
                if self._names is None or name in self._names:
                    calls = await self._open(name)
                    records = await calls.wait("count")
                    listed.append({"name": name, "records": records, "dim": calls.of.dim, "metric": calls.of.metric})
            return listed

    async def search(
        self,
        collection: str,
        query: str | None = None,
        vector: list[float] | None = None,
        k: int = 10,
        where: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Find the k records nearest to a text, or to a vector, nearest first.

        Scores: cosine and ip, larger is nearer; l2, smaller is nearer. `where` filters by metadata, such as
        {"lang": "de", "year": {"gte": 2024}}; operators: eq ne in nin lt lte gt gte between exists contains prefix
        like ilike any all, combined by and, or, not. At most 100 records are returned.
        """
        with _told():
            calls = await self._open(collection)
            if (query is None) == (vector is None):
                raise InputError("give query, a text, or vector, and not both")
            given = vector if query is None else await self._embedded(query)
            hits = await calls.wait("search", given, _few(k, "k"), where)
            return [{**_plain_record(hit), "score": hit.score} for hit in hits]

    async def get(
        self,
        collection: str,
        ids: list[str | int] | None = None,
        where: dict[str, Any] | None = None,
        limit: int = 20,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Return records by id, by filter (`where`, as for search), or both. Unknown ids are left out.

        At most 100 records are returned; offset skips.
        """
        with _told():
            calls = await self._open(collection)
            part = {"limit": _few(limit, "limit"), "offset": offset, "include_vectors": False}
            return [_plain_record(record) for record in await calls.wait("get", ids, where, **part)]

    async def upsert(
        self,
        collection: str,
        ids: list[str | int],
        documents: list[str],
        metadata: list[dict[str, Any] | None] | None = None,
        vectors: list[list[float]] | None = None,
    ) -> int:
        """Write texts under ids, all or nothing, and return how many. Records whose ids exist are replaced.

        Vectors are made of the texts unless they are given.
        """
        with _told():
            calls = await self._open(collection)
            given = [await self._embedded(text) for text in documents] if vectors is None else vectors
            return int(await calls.wait("upsert", ids, given, metadata, documents))

    async def delete(self, collection: str, ids: list[str | int]) -> int:
        """Delete records by id, and return how many there were. Unknown ids are no error."""
        with _told():
            calls = await self._open(collection)
            return int(await calls.wait("delete", ids))

    async def _open(self, name: str) -> Calls:
        if self._names is not None and name not in self._names:
            raise InputError(f"no collection {name!r}: the tool `collections` lists them")
        if isinstance(self._store, AsyncStore):
            return Calls(await self._store.collection(name, tenant=self._tenant))
        return Calls(await asyncio.to_thread(self._store.collection, name, tenant=self._tenant))

    async def _embedded(self, text: str) -> Sequence[float]:
        if self._embed is None:
            raise InputError("this server has no model to embed texts with: give vectors")
        return await asyncio.to_thread(self._embed, text)


@contextmanager
def _told() -> Iterator[None]:
    """Tell the model what was wrong; of other errors it gets no word."""
    try:
        yield
    except EncvecError as error:
        raise ToolError(str(error)) from error


def _few(value: int, name: str) -> int:
    if not 1 <= value <= _MOST:
        raise InputError(f"{name} must be an integer from 1 to {_MOST}, got {value}")
    return value


def _plain_record(record: Any) -> dict[str, Any]:
    return {"id": _plain(record.id), "document": record.document, "metadata": _plain(record.metadata)}


def _plain(value: Any) -> Any:
    """Return a value in types that JSON has."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case dt.date():
            return value.isoformat()
    return str(value)
