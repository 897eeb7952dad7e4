"""Files of vectors in every format, and how a test reads them."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encvec_store.cli.columns import Columns
from encvec_store.cli.readers import open_reader
from encvec_store.transfer import sound
from tests.cli.conftest import DIM, write_lines


def read(path, size=7, kind=None, **columns):
    """Return ids, vectors, metadata, documents and positions of all rows, read in batches of `size`."""
    reader = open_reader(str(path), kind, Columns(**columns))
    batches = list(sound(reader, size))
    assert all(0 < len(batch.ids) <= size for batch in batches)
    ids = [id for batch in batches for id in batch.ids]
    positions = [place for batch in batches for place in batch.positions]
    metadata = [item for batch in batches for item in batch.metadata or []]
    documents = [item for batch in batches for item in batch.documents or []]
    stacked = np.concatenate([batch.vectors for batch in batches]) if batches else None
    assert reader.total in (None, len(ids))
    return ids, stacked, metadata, documents, positions


def make_npy(path, vectors):
    np.save(path, vectors)


def make_hdf5(path, vectors):
    with h5py.File(path, "w") as file:
        file["train"] = vectors
        file["test"] = vectors[:3]
        file.attrs["distance"] = "euclidean"


def make_texmex(kind):
    def make(path, vectors):
        rows = np.empty(len(vectors), [("dim", "<i4"), ("vector", kind, (DIM,))])
        rows["dim"], rows["vector"] = DIM, vectors
        rows.tofile(path)

    return make


def make_npz(path, vectors):
    np.savez_compressed(path, vectors=vectors)


def make_csv(separator):
    def make(path, vectors):
        rows = [f'"{json.dumps(vector.tolist())}"' for vector in vectors]
        path.write_text("\n".join(["vector", *rows]) + "\n", encoding="utf-8")

    return make


def make_parquet(path, vectors):
    pq.write_table(pa.table({"vector": list(vectors)}), path, row_group_size=10)


def make_lines(path, vectors):
    write_lines(path, *({"vector": vector.tolist()} for vector in vectors))


MAKERS = {
    "npy": make_npy,
    "npz": make_npz,
    "fvecs": make_texmex("<f4"),
    "hdf5": make_hdf5,
    "parquet": make_parquet,
    "jsonl": make_lines,
    "csv": make_csv(","),
    "tsv": make_csv("\t"),
}


TEXT = {"jsonl": 1, "csv": 2, "tsv": 2}
"""The line of the first row."""
