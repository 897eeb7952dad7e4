"""The stores of other projects, each as its own process uses it. Imports nothing of this package.

Ids are 0, 1, ...; every hit brings its document. `SETTINGS` lists what the benchmark tries, cheapest first: it takes
the first that reaches the recall.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Hits = list[tuple[int, str]]
Setting = dict[str, int]
EFS = (16, 24, 40, 64, 100, 200, 400, 800, 1600)


class Store(Protocol):
    """An open store."""

    version: str

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        """Insert or replace records; durable on return."""

    def finish(self) -> None:
        """Build or refresh the index, so that searches are as fast as they will be."""

    def set(self, setting: Setting) -> None:
        """Use a setting from now on."""

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        """Return the hits of each of (q, d) queries, nearest first: (id, document)."""

    def disk(self) -> int:
        """Return the bytes stored."""

    def close(self) -> None:
        """Close it."""


def in_folder(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Faiss:
    """FAISS HNSW of unit vectors, in memory and saved as a file; documents in SQLite.

    M = 32 and efConstruction = 40, as the `faiss:` store chooses. FAISS's HNSW cannot replace a vector, so `finish`
    builds it again after updates. It does not see what another process writes.
    """

    SETTINGS = tuple({"ef": ef} for ef in EFS)

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        import faiss

        self._faiss: Any = faiss
        self._faiss.omp_set_num_threads(1)
        self.version = f"faiss-cpu {version('faiss-cpu')}, SQLite {sqlite3.sqlite_version}"
        self._folder, self._dim, self._storage = Path(place), dim, str(options["storage"])
        self._database = sqlite3.connect(self._folder / "documents.sqlite3", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, document TEXT NOT NULL)")
        self._file = self._folder / "index.faiss"
        self._index = self._empty() if create else self._faiss.read_index(str(self._file))
        self._replaced: list[tuple[npt.NDArray[np.int64], Matrix]] = []

    def _empty(self) -> Any:
        measure = self._faiss.METRIC_INNER_PRODUCT
        if self._storage == "sq8":
            index = self._faiss.IndexHNSWSQ(self._dim, self._faiss.ScalarQuantizer.QT_8bit, 32, measure)
        else:
            index = self._faiss.IndexHNSWFlat(self._dim, 32, measure)
        index.hnsw.efConstruction = 40
        return index

    def _add(self, index: Any, vectors: Matrix) -> None:
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?)", zip(ids, documents, strict=True))
        self._database.execute("COMMIT")
        rows = np.asarray(ids, np.int64)
        known = rows < self._index.ntotal
        if known.any():
            self._replaced.append((rows[known], _unit(vectors[known])))
        if not known.all():
            self._add(self._index, _unit(vectors[~known]))

    def finish(self) -> None:
        if self._replaced:
            every = self._index.storage.reconstruct_n(0, self._index.ntotal)
            for rows, vectors in self._replaced:
                every[rows] = vectors
            self._replaced.clear()
            self._index = self._empty()
            self._add(self._index, every)
        draft = self._file.with_suffix(".new")
        self._faiss.write_index(self._index, str(draft))
        draft.replace(self._file)

    def set(self, setting: Setting) -> None:
        self._index.hnsw.efSearch = setting["ef"]

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        found = self._index.search(_unit(queries), k)[1]
        wanted = found.ravel().tolist() if len(queries) == 1 else np.unique(found).tolist()
        marks = ",".join("?" * len(wanted))
        ask = f"SELECT id, document FROM documents WHERE id IN ({marks})"  # noqa: S608
        documents = dict(self._database.execute(ask, wanted))
        return [[(row, documents[row]) for row in rows if row >= 0] for rows in found.tolist()]

    def disk(self) -> int:
        return in_folder(self._folder)

    def close(self) -> None:
        self._database.close()


class Chroma:
    """Chroma's persistent client, HNSW with its defaults; telemetry off.

    Another `ef_search` for a collection has no effect while it is open (version 1.5.9), so its default stays.
    """

    SETTINGS: tuple[Setting, ...] = ({"ef": 100},)

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        import chromadb  # type: ignore[import-not-found,unused-ignore]

        self.version = f"chromadb {version('chromadb')}"
        self._folder = Path(place)
        self._client = chromadb.PersistentClient(place, settings=chromadb.Settings(anonymized_telemetry=False))
        if create:
            graph = {"hnsw": {"space": "cosine", "num_threads": 1}}
            self._docs = self._client.create_collection("docs", embedding_function=None, configuration=graph)
        else:
            self._docs = self._client.get_collection("docs", embedding_function=None)

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        most = self._client.get_max_batch_size()
        for start in range(0, len(ids), most):
            part = slice(start, start + most)
            self._docs.upsert([str(i) for i in ids[part]], embeddings=vectors[part], documents=list(documents[part]))

    def finish(self) -> None:
        """Nothing to do: the next search brings the graph up to date."""

    def set(self, setting: Setting) -> None:
        """Nothing to set."""

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        found = self._docs.query(query_embeddings=queries, n_results=k, include=["documents"])
        pairs = zip(found["ids"], found["documents"], strict=True)
        return [[(int(id), document) for id, document in zip(*pair, strict=True)] for pair in pairs]

    def disk(self) -> int:
        return in_folder(self._folder)

    def close(self) -> None:
        """It has no end of its own."""


class Lance:
    """LanceDB, IVF_HNSW_SQ with one partition for each million records; old versions removed at `finish`.

    With `shared` it looks for newer versions at every search. It needs several threads for its reads: with one, an
    index is never finished.
    """

    SETTINGS = tuple({"ef": ef, "refine": refine} for ef in (20, 40, 100, 200) for refine in (1, 2, 3))

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        import datetime as dt

        import lancedb  # type: ignore[import-not-found,unused-ignore]
        import pyarrow as pa  # type: ignore[import-not-found,import-untyped,unused-ignore]

        self.version = f"lancedb {version('lancedb')}"
        self._arrow, self._at_once, self._folder, self._dim = pa, dt.timedelta(0), Path(place), dim
        database = lancedb.connect(place, read_consistency_interval=self._at_once if shared else None)
        vector = pa.list_(pa.float32(), dim)
        self._schema = pa.schema([("id", pa.int64()), ("vector", vector), ("document", pa.string())])
        self._table = database.create_table("docs", schema=self._schema) if create else database.open_table("docs")
        self._setting: Setting = {"ef": 100, "refine": 2}

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        pa = self._arrow
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        columns = {"id": list(ids), "vector": pa.FixedSizeListArray.from_arrays(flat, self._dim)}
        rows = pa.table({**columns, "document": list(documents)}, schema=self._schema)
        if self._table.count_rows() <= min(ids):
            self._table.add(rows)
        else:
            upsert = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(rows)

    def finish(self) -> None:
        if not self._table.list_indices():
            parts = max(1, self._table.count_rows() >> 20)
            self._table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=parts)
        self._table.optimize(cleanup_older_than=self._at_once)

    def set(self, setting: Setting) -> None:
        self._setting = setting

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        return [self._one(query, k) for query in queries]  # a batch is not faster there

    def _one(self, query: Matrix, k: int) -> Hits:
        ask = self._table.search(query).distance_type("cosine").limit(k)
        refine = self._setting["refine"]
        ask = ask.refine_factor(refine).ef(max(self._setting["ef"], k * refine))  # it refuses fewer
        found = ask.select(["id", "document", "_distance"]).to_arrow()
        return list(zip(found["id"].to_pylist(), found["document"].to_pylist(), strict=True))

    def disk(self) -> int:
        return in_folder(self._folder)

    def close(self) -> None:
        """It has no end of its own."""


class Qdrant:
    """Qdrant's client in local mode: records in SQLite, all vectors in memory, every search compares all of them."""

    SETTINGS: tuple[Setting, ...] = ({},)

    def __init__(self, place: str, dim: int, *, create: bool, shared: bool, options: dict[str, Any]) -> None:
        import warnings

        from qdrant_client import QdrantClient, models  # type: ignore[import-not-found,unused-ignore]

        warnings.simplefilter("ignore")  # above 20,000 records it advises a server
        self.version = f"qdrant-client {version('qdrant-client')}"
        self._models, self._folder = models, Path(place)
        self._client = QdrantClient(path=place)
        if create:
            how = models.VectorParams(size=dim, distance=models.Distance.COSINE)
            self._client.create_collection("docs", vectors_config=how)

    def write(self, ids: Sequence[int], vectors: Matrix, documents: Sequence[str]) -> None:
        payloads = [{"document": document} for document in documents]
        batch = self._models.Batch(ids=list(ids), vectors=vectors.tolist(), payloads=payloads)
        self._client.upsert("docs", batch)

    def finish(self) -> None:
        """Nothing to do: there is no index."""

    def set(self, setting: Setting) -> None:
        """Nothing to set."""

    def search(self, queries: Matrix, k: int) -> list[Hits]:
        found = [self._client.query_points("docs", query=query, limit=k, with_payload=True).points for query in queries]
        return [[(int(point.id), point.payload["document"]) for point in points] for points in found]

    def disk(self) -> int:
        return in_folder(self._folder)

    def close(self) -> None:
        self._client.close()


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scaled: Matrix = vectors / lengths[:, None]
    return scaled
