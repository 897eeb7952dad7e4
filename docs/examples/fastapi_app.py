r"""A notes service on FastAPI and PostgreSQL: the database sees neither texts nor vectors.

    NOTES_URL=postgresql://user@host/db NOTES_KEYS=file:keys.json NOTES_PASSPHRASE=... \
        uvicorn docs.examples.fastapi_app:app

    curl localhost:8000/notes -d '[{"id": "a", "text": "the card is lost", "metadata": {"year": 2026}}]' \
        -H 'content-type: application/json'
    curl localhost:8000/search -d '{"query": "my card", "where": {"year": {"gte": 2025}}}' \
        -H 'content-type: application/json'

The keyset is made by `encvec keys create`. `embed` is a toy, so that this runs without a model; put your own in its
place, plain or async. Queries come in the body of a POST: addresses stand in the logs of every proxy. There are no
users here: put your authentication before it, and give each customer a `tenant=` of their own.
"""

from __future__ import annotations

import os
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import encvec_store as ev
from encvec_store.errors import InputError, StoreError

DIM = 256
MOST = 100
"""Notes and hits of one request."""


def embed(texts: list[str]) -> list[np.ndarray]:
    """Count letters by threes, hashed: n vectors of (DIM,). A toy."""
    vectors = np.zeros((len(texts), DIM), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        padded = f"  {text.lower()} "
        for at in range(len(padded) - 2):
            vector[zlib.crc32(padded[at : at + 3].encode()) % DIM] += 1
    return list(np.sqrt(vectors))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the store open while the service runs, in the event loop that serves requests."""
    keyset = ev.Keyset.open(os.environ["NOTES_KEYS"], passphrase=os.environ.get("NOTES_PASSPHRASE"))
    async with ev.aio.connect(os.environ["NOTES_URL"], keyset=keyset) as store:
        app.state.notes = await store.collection("notes", dim=DIM, embed=embed, model="letters by threes")
        yield


app = FastAPI(title="Notes", lifespan=lifespan)


async def opened(request: Request) -> ev.aio.AsyncCollection:
    """Return the collection that `lifespan` opened."""
    return request.app.state.notes


Notes = Annotated[ev.aio.AsyncCollection, Depends(opened)]


class Note(BaseModel):
    """A note as it comes in; without an id it gets a random one."""

    id: int | str = Field(default_factory=lambda: str(uuid.uuid4()))
    text: str = Field(min_length=1)
    metadata: dict[str, Any] = {}


class Question(BaseModel):
    """A search by words."""

    query: str = Field(min_length=1)
    k: int = Field(10, ge=1, le=MOST)
    where: dict[str, Any] | None = None


@app.post("/notes", status_code=201)
async def add(notes: Notes, given: Annotated[list[Note], Body(min_length=1, max_length=MOST)]) -> dict[str, Any]:
    """Write notes, all or nothing. Those whose ids exist are replaced."""
    ids = [note.id for note in given]
    await notes.upsert(ids, metadata=[note.metadata for note in given], texts=[note.text for note in given])
    return {"ids": ids}


@app.post("/search")
async def search(notes: Notes, question: Question) -> list[dict[str, Any]]:
    """Find the k notes nearest to a text that pass a filter, nearest first, with exact cosines."""
    hits = await notes.search(question.query, question.k, question.where)
    return [{**plain(hit), "score": hit.score} for hit in hits]


@app.get("/notes/{name}")
async def get(notes: Notes, name: str) -> dict[str, Any]:
    """Return a note, by the text of its id."""
    found = await notes.get(named(name), include_vectors=False)
    if not found:
        raise HTTPException(404, f"no note {name!r}")
    return plain(found[0])


@app.delete("/notes/{name}")
async def delete(notes: Notes, name: str) -> dict[str, int]:
    """Delete a note, by the text of its id. One that is not there is no error."""
    return {"deleted": await notes.delete(named(name))}


def named(name: str) -> list[int | str]:
    """Return the ids that a part of an address may mean: 17 is not "17"."""
    return [name, int(name)] if name.isascii() and name.isdecimal() and len(name) < 19 else [name]


def plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON has it."""
    return {"id": record.id, "text": record.document, "metadata": record.metadata}


@app.exception_handler(InputError)
async def refused(request: Request, error: InputError) -> JSONResponse:
    """Tell the caller what was wrong: these errors speak of what was given, and show no vector."""
    return JSONResponse({"detail": str(error)}, status_code=422)


@app.exception_handler(StoreError)
async def unreachable(request: Request, error: StoreError) -> JSONResponse:
    """Say that it may work later. Why is for the log, not for the caller."""
    return JSONResponse({"detail": "the store does not answer: try again"}, 503, {"Retry-After": "5"})
