"""MCP: a real client, beside the server in one process, and over the pipes of a process that it starts."""

import datetime as dt
import os
import sys
import uuid
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

import encvec_store as ev
from encvec_store.integrations.mcp import make_server
from tests.kits.adapters import async_fresh, embedded, fresh, place, stores  # noqa: F401

ROOT = Path(__file__).resolve().parents[3]
TEXTS = ["the card was lost", "the card is blocked", "a transfer is late"]


def embed(text):
    return embedded([text])[0].tolist()


def filled(collection):
    metadata = [{"year": 2024 + at, "day": dt.date(2024, 1, 1 + at), "raw": b"\0"} for at in range(3)]
    collection.upsert(["a", 2, uuid.UUID(int=3)], embedded(TEXTS), metadata, TEXTS)
    return collection


async def asked(client, tool, **given):
    """Return what a tool answers, or the text of its error."""
    result = await client.call_tool(tool, given)
    if result.is_error:
        return result.content[0].text
    return result.structured_content["result"]


async def test_reading(fresh, stores):  # noqa: F811
    collection = filled(fresh("memory", 64))
    server = make_server(stores("memory"), embed=embed, collections=[collection.name])
    async with Client(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"collections", "search", "get"}, "read-only unless asked"
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        assert "Find the k records nearest" in tools["search"].description
        name = collection.name
        listed = await asked(client, "collections")
        assert listed == [{"name": name, "records": 3, "dim": 64, "metric": "cosine"}]
        (hit,) = await asked(client, "search", collection=name, query="my card", k=1, where={"year": {"gt": 2024}})
        assert hit.pop("score") == pytest.approx(collection.search(embed("my card"), where={"year": 2025})[0].score)
        assert hit == {
            "id": 2,
            "document": TEXTS[1],
            "metadata": {"year": 2025, "day": "2024-01-02", "raw": "AA=="},
        }
        by_vector = await asked(client, "search", collection=name, vector=embed("my card"), k=1, where={"year": 2025})
        assert by_vector[0]["id"] == 2
        found = await asked(client, "get", collection=name, ids=["a", 2, "unknown"])
        assert [record["id"] for record in found] == ["a", 2]
        (last,) = await asked(client, "get", collection=name, where={"year": 2026})
        assert last["id"] == str(uuid.UUID(int=3))
        for tool, given, message in (
            ("search", {"collection": "other", "query": "x"}, "no collection 'other': the tool `collections` lists"),
            ("search", {"collection": name}, "give query, a text, or vector"),
            ("search", {"collection": name, "query": "x", "k": 101}, "k must be an integer from 1 to 100, got 101"),
            ("search", {"collection": name, "vector": [1.0]}, "64"),
            ("get", {"collection": name, "where": {"year": {"near": 1}}}, "unknown operator 'near'"),
            ("get", {"collection": name, "limit": 0}, "limit must be an integer from 1 to 100, got 0"),
        ):
            assert message in await asked(client, tool, **given)
        assert "Unknown tool" in str(await raised(client.call_tool("delete", {"collection": name, "ids": ["a"]})))
    assert collection.count() == 3


async def raised(call):
    """Return the error of a call, or its answer if that says that it failed."""
    try:
        return await call
    except Exception as error:
        return error


async def test_writing_if_asked(async_fresh):  # noqa: F811
    """Over an async store in PostgreSQL; and without a model, vectors must be given."""
    collection = await async_fresh("postgresql", 64, tenant="acme")
    store = async_fresh.store_of(collection)
    name = collection.name
    async with Client(make_server(store, embed=embed, tenant="acme", writes=True)) as client:
        given = {"ids": ["a", 2], "documents": TEXTS[:2], "metadata": [{"n": 1}, None]}
        assert await asked(client, "upsert", collection=name, **given) == 2
        assert (await asked(client, "search", collection=name, query="lost card", k=1))[0]["id"] == "a"
        assert await asked(client, "delete", collection=name, ids=["unknown", 2]) == 1
        assert [record["id"] for record in await asked(client, "get", collection=name)] == ["a"]
        assert name in {each["name"] for each in await asked(client, "collections")}
        assert "give dim=... to create it" in await asked(client, "delete", collection="new", ids=["a"])
    async with Client(make_server(store, writes=True, tenant="acme")) as client:
        assert "no model to embed" in await asked(client, "search", collection=name, query="x")
        vectors = [embed("y")]
        assert await asked(client, "upsert", collection=name, ids=["b"], documents=["y"], vectors=vectors) == 1
    with pytest.raises(ev.errors.InputError, match="must be a Store or an AsyncStore, got AsyncCollection"):
        make_server(collection)


async def test_over_stdio(tmp_path):
    """The example, started by a client as an assistant does."""
    keys = f"file:{tmp_path / 'keys.json'}"
    with ev.connect(tmp_path / "vectors", keyset=ev.Keyset.create(keys, passphrase="correct horse")) as store:
        store.collection("notes", dim=64).upsert(["a", "b", "c"], [embed(text) for text in TEXTS], documents=TEXTS)
    environment = {**os.environ, "NOTES_PASSPHRASE": "correct horse", "PYTHONPATH": str(ROOT)}
    command = StdioServerParameters(
        command=sys.executable,
        args=[str(ROOT / "docs/examples/mcp_server.py"), str(tmp_path / "vectors"), keys],
        env=environment,
    )
    async with Client(command) as client:
        assert (await asked(client, "collections"))[0]["records"] == 3
        (hit,) = await asked(client, "search", collection="notes", query="late transfer", k=1)
        assert (hit["id"], hit["document"]) == ("c", TEXTS[2])
