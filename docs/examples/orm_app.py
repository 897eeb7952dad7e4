"""A notes app on SQLAlchemy and PostgreSQL whose embeddings the database never sees.

    python docs/examples/orm_app.py postgresql+psycopg://user@host/db file:keys.json

The passphrase of a `file:` keyset comes from NOTES_PASSPHRASE. The database needs no extension. `embed` is a toy, so
that this runs without a model; put your own in its place. The text of a note is not encrypted here: EncryptedVector is
for the vectors, which are as good as the text to whoever can invert them.
"""

from __future__ import annotations

import os
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import encvec_store as ev
from encvec_store.errors import KeysetError
from encvec_store.integrations.sqlalchemy import EncryptedVector, bulk_insert, nearest

DIM = 256
keys: dict[str, ev.Keyset] = {}


class Base(DeclarativeBase):
    """The app's tables."""


class Note(Base):
    """A note. Its key is made here, not by the server, so that its vector is bound to it from the first write."""

    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    author: Mapped[str]
    text: Mapped[str]
    # was: mapped_column(Vector(DIM)). The keyset is a function, as this is declared before it is opened.
    embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(DIM, keyset=lambda: keys["app"]))


def embed(text: str) -> npt.NDArray[np.float32]:
    """Count letters by threes, hashed: (DIM,). A toy."""
    padded, counts = f"  {text.lower()} ", np.zeros(DIM, np.float32)
    for i in range(len(padded) - 2):
        counts[zlib.crc32(padded[i : i + 3].encode()) % DIM] += 1
    return np.sqrt(counts)


@contextmanager
def opened(url: str, keyset: str) -> Iterator[Engine]:
    """Open keys and database, and make the tables (an app in use has migrations: see docs/sqlalchemy.md)."""
    passphrase = os.environ.get("NOTES_PASSPHRASE")
    try:
        keys["app"] = ev.Keyset.open(keyset, passphrase=passphrase)
    except KeysetError:
        keys["app"] = ev.Keyset.create(keyset, passphrase=passphrase)
    engine = create_engine(url, hide_parameters=True)
    Base.metadata.create_all(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def search(session: Session, text: str, k: int = 3, author: str | None = None) -> list[tuple[float, str]]:
    """Return the k notes nearest to a text, with exact cosines."""
    notes = select(Note) if author is None else select(Note).where(Note.author == author)
    return [(round(hit.score, 3), hit.item.text) for hit in nearest(session, notes, Note.embedding, embed(text), k)]


NOTES = {
    "ada": ["the engine weaves algebraic patterns", "notes on the analytical engine", "a letter about flowers"],
    "grace": ["a moth in the relay of the machine", "compilers turn words into programs", "ships at night"],
}


def main(url: str, keyset: str) -> list[str]:
    """Write some notes, change one, search; returns what it prints."""
    said = []
    with opened(url, keyset) as engine, Session(engine) as session:
        rows = [{"author": a, "text": t, "embedding": embed(t)} for a, texts in NOTES.items() for t in texts]
        said.append(f"{bulk_insert(session, Note, rows)} notes copied in")
        session.add(note := Note(author="ada", text="a draft", embedding=embed("a draft")))
        session.commit()
        note.text = "flowers of the garden"
        note.embedding = embed(note.text)
        session.commit()
        said += [f"{score:.3f} {text}" for score, text in search(session, "letters on flowers")]
        said += [f"{score:.3f} {text}" for score, text in search(session, "machines and programs", 1, "grace")]
        session.delete(note)  # not committed yet: this session does not find it any more
        said += [f"{score:.3f} {text}" for score, text in search(session, "letters on flowers", 1)]
    print("\n".join(said))
    return said


if __name__ == "__main__":
    main(*sys.argv[1:])
