"""The tour: real text and face embeddings are encrypted, searched beside plaintext, stolen, and tampered with.

Usage: python -m benchmarks.demo [--dir FOLDER] [--json]      (or `make demo`)

Nothing is downloaded or prepared: it measures every figure while you watch, in a temporary folder.
"""

from __future__ import annotations

import json
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

import encvec_store as ev
from benchmarks import attack
from benchmarks.datasets import Dataset, Floats, load
from benchmarks.report import Row, Show, one_thread
from encvec_store import low_level
from encvec_store.data import metric
from encvec_store.indexes.faiss import FaissOptions
from encvec_store.lab.bench.encrypted import Encrypted, fill
from encvec_store.lab.bench.plain import Plain
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth
from encvec_store.schemes import Spectrum
from encvec_store.schemes import fit_profile as fit

K = 10
QUERIES = 500
STOLEN = 1_000
ALIGNED = 4_000
# Queries of banking77's test split that are shown.
ASKED: tuple[tuple[int, dict[str, Any] | None], ...] = (
    (845, None),
    (1921, None),
    (1921, {"intent": "card_swallowed", "words": {"lte": 12}}),
)
COLUMNS = ["what", "recall@1", "recall@10", "rank-1", "p50_ms", "p95_ms", "qps", "build_s", "bytes"]


class Demo:
    """One walk through a store in a folder."""

    def __init__(self, folder: Path, limit: int | None, show: Show) -> None:
        self.folder, self.show = folder, show
        self.text, self.faces = load("banking77", limit=limit), load("olivetti")
        self.found: dict[str, Any] = {}
        """Return what --json prints."""
        self.passphrase = secrets.token_urlsafe(16)
        self.keys = f"file:{folder / 'keys.json'}"

    def step(self, title: str) -> None:
        """Begin a step."""
        self.show.title(title)

    def say(self, text: str) -> None:
        """Print a line."""
        self.show.out.print(text)

    def run(self) -> dict[str, Any]:
        """Run all steps."""
        began = time.perf_counter()
        keyset = ev.Keyset.create(self.keys, passphrase=self.passphrase)
        # two stores, so that each size on disk can be measured
        with (
            ev.connect(f"faiss:{self.folder / 'texts'}", keyset=keyset, maintenance="inline") as text_store,
            ev.connect(f"faiss:{self.folder / 'faces'}", keyset=keyset, maintenance="inline") as face_store,
        ):
            texts = text_store.collection(
                "texts", self.text.dim, scheme="sketch", fields={"intent": "blind", "words": "sealed"}
            )
            faces = face_store.collection("faces", self.faces.dim, scheme="sketch", fields={"person": "blind"})
            self.found["text"] = self.compare("1  Sentences of bank customers", text_store, texts, self.text)
            self.found["faces"] = self.compare("2  Faces", face_store, faces, self.faces)
            self.found["hits"] = self.ask(texts)
            self.found["calibration"] = self.calibrate(texts)
            self.found["stolen"] = self.steal(texts, faces)
            self.found["verified"] = self.verify(texts)
        self.found["tampered"] = self.tamper()
        self.found["seconds"] = time.perf_counter() - began
        self.say(f"\n[dim]{self.found['seconds']:.0f} seconds. `make bench` measures more, and larger.[/]")
        return self.found

    # ------------------------------------------------------------------------------------ what it costs

    def compare(self, heading: str, store: ev.Store, collection: ev.Collection, data: Dataset) -> list[Row]:
        """Fill a collection and measure it beside plaintext FAISS."""
        n = len(data.vectors)
        self.step(f"{heading}: {n:,} embeddings of {data.dim}, encrypted into faiss:")
        names = data.label_names
        metadata: list[dict[str, Any]] = []
        for i, label in enumerate([] if data.labels is None else data.labels.tolist()):
            if data.texts is None:
                metadata.append({"person": f"person {label}"})
            else:
                metadata.append({"intent": names[label] if names else label, "words": len(data.texts[i].split())})
        with self.show.stage("plaintext FAISS", 1):
            plain = Plain(metric(data.metric), data.vectors, FaissOptions(storage="float32"))
        with self.show.stage("encrypted", n) as done:
            written = fill(collection, data.vectors, done, metadata=metadata, documents=data.texts)
        encrypted = Encrypted(store, collection)
        stats = collection.stats()
        with self.show.stage("index", 1):
            built = written + encrypted.build()
        queries = data.queries[:QUERIES]
        truth = Truth(metric(data.metric), data.vectors, queries, K)
        variants: dict[str, Callable[[Floats], Any]] = {
            "plaintext FAISS": lambda query: plain.search(query, K),
        }
        if encrypted.has_stage_one:
            variants["encrypted, index alone"] = lambda query: encrypted.candidates(query, K)
            variants["encrypted, exact re-rank"] = lambda query: collection.search(query, k=K)
        else:
            variants["encrypted, sealed"] = lambda query: collection.search(query, k=K)
        passes = max(1, QUERIES // len(queries))
        with self.show.stage("queries by turns", len(queries) * passes) as done:
            timed = interleave(variants, queries, passes=passes, progress=done)
        held, scheme = encrypted.stats()["store"]["bytes"], stats["scheme"]
        rows: list[Row] = []
        for what, measured in timed.items():
            ours = what != "plaintext FAISS"
            places = encrypted.places(measured.answers) if ours else measured.answers
            row: Row = {
                "what": what,
                "n": n,
                "d": data.dim,
                **{f"recall@{k}": truth.recall(places, k) for k in (1, 10)},
            }
            if data.texts is None and data.labels is not None and data.query_labels is not None:
                first = [data.labels[place[0]] for place in places]
                row["rank-1"] = float((np.array(first) == data.query_labels[: len(queries)]).mean())
            row |= {**measured.row(), "build_s": built if ours else plain.build_s}
            rows.append({**row, "bytes": sum(held.values()) if ours else plain.size()})
        kind = encrypted.stats()["store"]["index"]
        title = f"{K} hits for each of {len(queries)} queries, one at a time; {kind} index; one thread"
        filled = [name for name in COLUMNS if any(name in row for row in rows)]
        self.show.table(title, rows, filled)
        if data.texts is None:
            self.say("rank-1: the nearest photograph is of the same person. The queries are other photographs.")
        if not encrypted.has_stage_one:
            self.say(
                f"Below {stats['profile']['until']:,} records a collection is sealed: nothing is indexed, and vectors\n"
                "are opened and searched in memory, exactly."
            )
        else:
            fitted = stats["profile"]["fitted"]["records"]
            again = (
                "The sentences come sorted by intent, so the first 5,000 were a poor sample of the rest: it noticed,\n"
                f"and fitted the sketch anew at {fitted:,}.\n"
                if fitted >= 2 * 5_000
                else ""
            )
            what = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in held.items())
            self.say(
                "At 5,000 records the collection moved by itself from sealed to a sketch, fitted on its own vectors:\n"
                f"{scheme['k']} dimensions, beta {scheme['beta']:g}, {K * stats['oversample']} candidates re-ranked.\n"
                f"{again}Re-ranked hits carry the exact cosine. The index alone is what a server sees.\n"
                f"Ours is everything on disk, MB: {what}; FAISS's is its index, without any text."
            )
        return rows

    # ------------------------------------------------------------------------------------ what it gives

    def ask(self, texts: ev.Collection) -> list[Row]:
        """Show the hits of a few queries, one of them with a filter."""
        self.step("3  Hits: documents are decrypted here, and scores are exact")
        data, found = self.text, []
        assert data.query_texts is not None
        for i, where in ASKED:
            hits = texts.search(data.queries[i], k=3, where=where)
            self.say(
                f"\n[bold]{_safe(data.query_texts[i])}[/]" + (f"  [cyan]where {_safe(str(where))}[/]" if where else "")
            )
            for hit in hits:
                self.say(f"  {hit.score:.3f}  {_safe(hit.document or '')}  [dim]{hit.metadata['intent']}[/]")
            shown = [{"id": hit.id, "score": hit.score, "document": hit.document, **hit.metadata} for hit in hits]
            found.append({"query": data.query_texts[i], "where": where, "hits": shown})
        self.say(
            "\n[dim]intent is a blind field: the store compares keyed tokens. words is sealed: checked after opening[/]"
        )
        return found

    def calibrate(self, texts: ev.Collection) -> Row:
        """Find the largest noise that keeps the recall."""
        self.step("4  Calibrate: the most noise that keeps recall@10 at .99, simulated on this collection")
        with self.show.stage("calibrate", 1):
            result = texts.calibrate(k=K, target_recall=0.99, apply=False)
        candidates = K * result.oversample
        self.say(
            f"beta {result.beta:.2f} with exact re-rank of {candidates} candidates: recall {result.recall:.4f}, "
            f"lower bound {result.recall_low:.4f}, on {result.queries} queries, with {result.dimensions} dimensions. "
            f"This demo runs at the default, beta {texts.stats()['scheme']['beta']:g}."
        )
        return {"beta": result.beta, "candidates": candidates, "recall": result.recall, "recall_low": result.recall_low}

    # ---------------------------------------------------------------------------------- what a thief gets

    def steal(self, texts: ev.Collection, faces: ev.Collection) -> dict[str, Any]:
        """Attack the index vectors without the key, also those of the older scheme `sap`."""
        self.step("5  Stolen: the thief has the store's files and the public model, and no key")
        data = self.text
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(data.vectors))[:ALIGNED]
        own, others = data.vectors[chosen], data.queries
        rows = [_attack("none", "nearest neighbour", _found(own[:STOLEN], own, np.arange(STOLEN)), len(own))]
        spectrum, k = fit(others), texts.stats()["scheme"]["k"]
        with self.show.stage("attacking", 2) as done:
            rows += self._attacked("sap", attack.stolen(own, {"name": "sap"}), own, others, rng)
            done(1)
            # to compare with sketches, he makes his own, from the statistics of the sentences that he holds
            ciphertexts = texts.index_vectors([str(i) for i in chosen])
            rows += self._attacked(
                "sketch", ciphertexts, _sketched(own, spectrum, k), _sketched(others, spectrum, k), rng
            )
            done(1)
        title = f"Of {STOLEN:,} stolen sentences among {len(own):,}, the thief identifies"
        self.show.table(title, rows, ["scheme", "attack", "identified", "chance"])
        nothing = faces.index_vectors(["0"]).shape[1]
        self.say(
            "Nearest neighbours are not the strongest attack: who holds thousands of similar sentences aligns\n"
            "the secret rotation of `sap`, the scheme of comparable products. A whitened `sketch` has no axes left\n"
            "to align by, and noise against subtler attacks: `encvec leakage` runs those.\n"
            "[bold]But some tens of known records solve for either[/]: see docs/threat-model.md.\n"
            f"Of the faces the index holds {nothing} coordinates: they are sealed, and there is nothing to attack."
        )
        return {"identified": rows}

    def _attacked(self, scheme: str, taken: Floats, own: Floats, others: Floats, rng: np.random.Generator) -> list[Row]:
        """Run three attacks on ciphertexts of the points `own`; the thief holds `others` of the same kind."""
        shares = {"nearest neighbour": _found(_unit(taken[:STOLEN]), own, np.arange(STOLEN))}
        for pairs in (50, 400):  # orthogonal Procrustes
            u, _, v = np.linalg.svd(taken[:pairs].T @ own[:pairs], full_matrices=False)
            known = _found(taken[pairs : pairs + STOLEN] @ (u @ v), own, np.arange(pairs, pairs + STOLEN))
            shares[f"{pairs} known pairs"] = known
        mapped = attack.align(taken, others, rng)
        shares[f"aligned with {len(others):,} other sentences"] = attack.identified(mapped, own)
        return [_attack(scheme, what, share, len(own)) for what, share in shares.items()]

    # ------------------------------------------------------------------------------------ what is checked

    def verify(self, texts: ev.Collection) -> Row:
        """Check every record."""
        self.step("6  Verify, then change one bit on a copy of the disk")
        start = time.perf_counter()
        with self.show.stage("verify", texts.count()) as done:
            report = texts.verify(progress=lambda checked, total: done(checked))
        took = time.perf_counter() - start
        self.say(f"verify: {report.checked:,} records, {len(report.damaged)} damaged, {took:.1f} s")
        return {"ok": report.ok, "checked": report.checked, "seconds": took}

    def tamper(self) -> Row:
        """Flip one bit of one sealed record in a copy of the store, and find it."""
        copy = self.folder / "copy"
        shutil.copytree(self.folder / "texts", copy)
        file = copy / "records.sqlite3"
        database = sqlite3.connect(file)
        query = self.text.queries[ASKED[0][0]]
        keyset = ev.Keyset.open(self.keys, passphrase=self.passphrase)
        with ev.connect(f"faiss:{copy}", keyset=keyset) as store:
            collection = store.collection("texts")
            hit = collection.search(query, k=1)[0]
            row = int(low_level.places(collection, [hit.id])[0])
        (payload,) = database.execute("SELECT payload FROM records WHERE row = ?", (row,)).fetchone()
        database.close()
        content = bytearray(file.read_bytes())
        place = content.index(payload) + len(payload) // 2
        content[place] ^= 1
        file.write_bytes(content)
        refused = None
        with ev.connect(f"faiss:{copy}", keyset=keyset) as store:
            collection = store.collection("texts")
            try:
                collection.search(query, k=K)
            except ev.errors.AuthenticationError as error:
                refused = f"{type(error).__name__}: {error}"
            report = collection.verify()
        self.say(f"One bit of record {hit.id} flipped, byte {place:,} of {file.name}.")
        self.say(f"search: [bold]{refused or 'NOT REFUSED'}[/]")
        parts = ", ".join(damage.part for damage in report.damaged)
        self.say(f"verify: {report.checked:,} records, {len(report.damaged)} damaged: {parts}")
        return {"refused": refused, "damaged": len(report.damaged)}


def _unit(points: Floats) -> Floats:
    unit: Floats = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def _found(points: Floats, vectors: Floats, own: Any) -> float:
    """Return the share of points whose nearest embedding is their own, or equal: some sentences occur twice."""
    similar = points @ vectors.T
    mine = similar[np.arange(len(points)), own]
    return float((mine >= similar.max(axis=1) - 1e-5).mean())


def _sketched(vectors: Floats, spectrum: Spectrum, k: int) -> Floats:
    whitening = spectrum.directions[:, :k] / np.sqrt(spectrum.variances[:k])
    return _unit(((vectors - spectrum.mean) @ whitening).astype(np.float32))


def _attack(scheme: str, what: str, share: float, of: int) -> Row:
    return {"scheme": scheme, "attack": what, "identified": share, "chance": 1 / of}


def _safe(text: str) -> str:
    """Shorten to one line, and escape brackets, which would be markup."""
    line = " ".join(text.split())
    return (line if len(line) <= 90 else line[:89] + "…").replace("[", "\\[")


@click.command()
@click.option(
    "--dir", "folder", metavar="FOLDER", help="Keep the store and its keys here; by default a temporary folder."
)
@click.option("--limit", type=click.IntRange(5_000), metavar="N", help="Store at most N sentences.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with every figure.")
def main(folder: str | None, limit: int | None, as_json: bool) -> None:
    """Take the tour of encvec_store on real text and face embeddings."""
    with ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="encvec-demo-")))
        if folder and (place / "keys.json").exists():
            raise click.UsageError(f"{place} holds a store already; name an empty folder")
        place.mkdir(parents=True, exist_ok=True)
        demo = Demo(place, limit, Show(quiet=as_json))
        found = demo.run()
        if as_json:
            click.echo(json.dumps(found))
        elif folder:
            demo.say(f"The stores and their keys stay in {place}. Passphrase: {demo.passphrase}")


if __name__ == "__main__":
    one_thread("benchmarks.demo")
    main()
