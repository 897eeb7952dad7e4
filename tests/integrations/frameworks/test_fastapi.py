"""The example of a service: an HTTP client over TCP, a real PostgreSQL behind it."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import psycopg
import pytest
import uvicorn

import encvec_store as ev
from docs.examples import fastapi_app


@asynccontextmanager
async def served():
    """Serve the app on a free port, in this event loop: a client of it."""
    server = uvicorn.Server(uvicorn.Config(fastapi_app.app, port=0, ws="none", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "it did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


async def test_the_service(pg_dsn, tmp_path, monkeypatch):
    keys = f"file:{tmp_path / 'keys.json'}"
    ev.Keyset.create(keys, passphrase="correct horse")
    for name, value in (("URL", pg_dsn), ("KEYS", keys), ("PASSPHRASE", "correct horse")):
        monkeypatch.setenv(f"NOTES_{name}", value)
    notes = [
        {"id": "a", "text": "the card was lost", "metadata": {"year": 2024, "tags": ["x"]}},
        {"id": 17, "text": "the card is blocked", "metadata": {"year": 2026}},
        {"text": "a transfer is late", "metadata": {"year": 2026}},
    ]
    async with served() as client:
        written = await client.post("/notes", json=notes)
        assert (written.status_code, written.json()["ids"][:2]) == (201, ["a", 17])
        late = written.json()["ids"][2]
        found = (await client.post("/search", json={"query": "my card", "k": 2})).json()
        assert {hit["id"] for hit in found} == {"a", 17}
        assert found[0]["score"] >= found[1]["score"] > 0.3
        (hit,) = (await client.post("/search", json={"query": "card lost", "k": 1, "where": {"year": 2026}})).json()
        assert {key: hit[key] for key in notes[1]} == notes[1], "the filter decides, ids keep their types"
        many = [client.post("/search", json={"query": note["text"], "k": 1}) for note in notes * 5]
        answers = [answer.json()[0]["id"] for answer in await asyncio.gather(*many)]
        assert answers == ["a", 17, late] * 5, "at the same time"
        assert (await client.get("/notes/a")).json() == notes[0]
        assert (await client.get("/notes/17")).json() == notes[1]
        bad = {"year": {"near": 1}}
        for method, path, body, status, message in (
            ("POST", "/search", {"query": "x", "where": bad}, 422, "unknown operator 'near'"),
            ("POST", "/search", {"query": "x", "k": 0}, 422, "greater than or equal to 1"),
            ("POST", "/search", {"query": ""}, 422, "at least 1 character"),
            ("POST", "/search", ["x"], 422, "valid dictionary"),
            ("POST", "/notes", [], 422, "at least 1 item"),
            ("POST", "/notes", [{"id": "b", "text": "x"}, {"id": "b", "text": "y"}], 422, "'b'"),
            ("POST", "/notes", [{"id": "", "text": "x"}], 422, "id"),
            ("GET", "/notes/none", None, 404, "no note 'none'"),
            ("GET", "/none", None, 404, "Not Found"),
        ):
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, message in answer.text) == (status, True), answer.text
        for deleted in (1, 0):
            assert (await client.delete("/notes/17")).json() == {"deleted": deleted}
        assert (await client.get("/notes/17")).status_code == 404
    with psycopg.connect(pg_dsn) as connection:
        tables = connection.execute("SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|inf)'")
        reads = ["SELECT t::text FROM {}.{} t".format(*table) for table in tables.fetchall()]
        stored = "".join(str(row) for read in reads for row in connection.execute(read))
    assert "\\x" in stored
    for secret in (b"transfer", b"card", b"tags"):
        assert secret.decode() not in stored
        assert secret.hex() not in stored
    async with served() as client:  # started anew, with what is there
        hit = (await client.post("/search", json={"query": "late", "k": 1})).json()[0]
        assert (hit["id"], hit["text"]) == (late, notes[2]["text"])

        async def broken(*given, **options):
            raise ev.errors.StoreUnreachableError(f"no answer from {pg_dsn}")

        monkeypatch.setattr(ev.aio.AsyncCollection, "search", broken)
        answer = await client.post("/search", json={"query": "late"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert pg_dsn not in answer.text
    monkeypatch.setenv("NOTES_PASSPHRASE", "wrong")
    with pytest.raises(ev.errors.KeysetError):
        await fastapi_app.lifespan(fastapi_app.app).__aenter__()
