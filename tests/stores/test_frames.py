"""Arrays, tensors, columns and data frames go in, and results come out as tables, without a loss."""

import asyncio
import datetime as dt
import re
import sys
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits import oracle

PAGE = Path(__file__).resolve().parents[2] / "docs/frames.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
DIM, N = 6, 5
VECTORS = oracle.vectors(N, DIM)
DAY, TIME = dt.date(2024, 1, 31), dt.datetime(2024, 1, 31, 12, 30, 0, 5)
FIELDS = [
    {"lang": "de", "n": 2**60, "x": 0.1, "seen": True, "day": DAY, "at": TIME, "tags": ["a", "b"], "of": {"k": 1}},
    {"n": -1, "x": float("inf"), "seen": False, "day": DAY, "at": TIME, "tags": [], "of": {"k": 2}},
    {"lang": "fr", "x": 2.0, "at": TIME},
    {},
    {"lang": "\U0001f600", "n": 0, "of": {"k": 3}},
]
TEXTS = ["one", None, "three", "", "five"]
IDS = [f"id-{n}" for n in range(N)]
NAMES = list(FIELDS[0])
TABLE = pa.table(
    {
        "id": IDS,
        "vector": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), DIM),
        "text": TEXTS,
        **{name: pa.array([fields.get(name) for fields in FIELDS]) for name in NAMES},
    }
)


class Only:
    """Shows nothing of something but some of its interfaces."""

    def __init__(self, of, *names):
        self._of = of
        for name in names:
            setattr(type(self), name, lambda self, *given, name=name, **how: getattr(self._of, name)(*given, **how))

    def __class_getitem__(cls, name):
        return type(f"Only{name}", (cls,), {})


def only(of, *names):
    return Only[names[0]](of, *names)


class Tensor:
    """Refuses numpy until it is detached, on the CPU and of a type that numpy has, as tensors of torch do."""

    steps = ("detach", "cpu", "float")

    def __init__(self, values, done=()):
        self.values, self.done = values, done

    def __getattr__(self, name):
        if name not in self.steps:
            raise AttributeError(name)
        return lambda: Tensor(self.values, (*self.done, name))

    def __array__(self, dtype=None, copy=None):
        if self.done != self.steps:
            raise (RuntimeError if "detach" not in self.done else TypeError)(f"call {self.steps[len(self.done)]}")
        return self.values


class Far:
    """Lies where numpy cannot read."""

    def __dlpack__(self, **how):
        raise BufferError("it is on a device")

    def __dlpack_device__(self):
        return 2, 0


class Broken:
    def __arrow_c_stream__(self, requested_schema=None):
        return "no capsule"


@pytest.fixture
def things():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        yield store.collection("things", DIM)


def check(things, fields=FIELDS):
    records = {record.id: record for record in things.scroll()}
    for id, vector, own, text in zip(IDS, VECTORS, fields, TEXTS, strict=True):
        np.testing.assert_array_equal(records[id].vector, vector)
        assert (records[id].metadata, records[id].document) == (own, text)
        assert {name: type(value) for name, value in records[id].metadata.items()} == {
            name: type(value) for name, value in own.items()
        }


VECTOR_COLUMNS = {
    "torch": lambda: Tensor(VECTORS),
    "dlpack": lambda: only(VECTORS, "__dlpack__", "__dlpack_device__"),
    "array": lambda: only(VECTORS, "__array__"),
    "pandas lists": lambda: pd.Series(VECTORS.tolist()),
    "pandas arrays": lambda: pd.Series(list(VECTORS)),
    "pandas arrow": lambda: pd.Series(TABLE["vector"].to_pylist(), dtype=pd.ArrowDtype(TABLE["vector"].type)),
    "pandas frame": lambda: pd.DataFrame(VECTORS),
    "polars lists": lambda: pl.Series(VECTORS.tolist(), dtype=pl.List(pl.Float32)),
    "polars arrays": lambda: pl.Series(VECTORS.tolist(), dtype=pl.Array(pl.Float32, DIM)),
    "arrow chunked": lambda: pa.chunked_array([TABLE["vector"].chunk(0)[:2], TABLE["vector"].chunk(0)[2:]]),
    "arrow slice": lambda: pa.concat_arrays([TABLE["vector"].chunk(0)] * 2)[N:],
    "arrow lists": lambda: pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
    "arrow stream": lambda: only(TABLE["vector"], "__arrow_c_stream__"),
    "arrow array": lambda: only(TABLE["vector"].chunk(0), "__arrow_c_array__"),
}


@pytest.mark.parametrize("kind", VECTOR_COLUMNS)
def test_vectors(things, kind):
    things.upsert(IDS, VECTOR_COLUMNS[kind](), FIELDS, TEXTS)
    check(things)
    assert [hits[0].id for hits in things.search(VECTOR_COLUMNS[kind](), k=1)] == IDS


def of_polars():
    frame = pl.from_arrow(TABLE)
    return frame["id"], frame["vector"], frame.select(NAMES), frame["text"]


def of_pandas():
    frame = TABLE.to_pandas(integer_object_nulls=True)
    return frame["id"], frame["vector"], frame[NAMES], frame["text"]


def of_pandas_arrow():
    frame = TABLE.to_pandas(types_mapper=pd.ArrowDtype)
    return frame["id"], list(VECTORS), frame[NAMES], frame["text"]


def of_arrow():
    return TABLE["id"], TABLE["vector"], TABLE.select(NAMES), TABLE["text"]


def of_batches():
    (batch,) = TABLE.to_batches()
    return batch["id"], batch["vector"], batch.select(NAMES), batch["text"]


def of_the_c_interface():
    columns = (only(TABLE.select(NAMES), "__arrow_c_stream__"), only(TABLE["text"], "__arrow_c_stream__"))
    return TABLE["id"], TABLE["vector"], *columns


@pytest.mark.parametrize("parts", [of_polars, of_pandas, of_pandas_arrow, of_arrow, of_batches, of_the_c_interface])
def test_frames(things, parts):
    ids, vectors, metadata, documents = parts()
    assert things.upsert(ids, vectors, metadata, documents) == N
    expected = FIELDS
    if parts in (of_polars, of_arrow, of_batches, of_the_c_interface, of_pandas_arrow):
        expected = [dict(fields) for fields in FIELDS]
    check(things, expected)
    things.update(ids, metadata=metadata)
    check(things, expected)
    things.upsert(IDS, VECTORS, [{"lang": "xx", "old": 1}] * N, TEXTS)
    things.update(ids, metadata=metadata)
    check(things, [{"lang": "xx", "old": 1, **fields} for fields in expected])
    assert len(things.get(ids)) == things.delete(ids) == N


def test_what_is_wrong_is_said(things, monkeypatch):
    stuck = Tensor(VECTORS)
    stuck.steps = ("detach", "cpu", "float", "never")
    monkeypatch.setattr(Tensor, "steps", stuck.steps)
    for said, vectors in {
        "Tensor does not become an array": stuck,
        "copy it to the host's memory first": Far(),
        "rows of equal length": pa.array([[1.0] * DIM, None, *VECTORS[2:].tolist()], pa.list_(pa.float32())),
        "must have rows of equal length|expected shape": pl.Series([[1.0], *VECTORS[1:].tolist()]),
        "Broken has no Arrow data of this kind": Broken(),
        "expected numbers": only(TABLE.select(["id", "vector"]), "__arrow_c_stream__"),
    }.items():
        with pytest.raises(errors.InputError, match=said):
            things.upsert(IDS, vectors)
    with pytest.raises(errors.NonFiniteError):
        things.upsert(IDS[:1], pa.array([[1.0, None, *[1.0] * (DIM - 2)]], pa.list_(pa.float32(), DIM)))
    with pytest.raises(errors.MetadataError, match="keys must be strings"):
        things.upsert(IDS, VECTORS, pd.DataFrame({7: range(N)}))
    with pytest.raises(errors.ShapeError, match="5 mappings, one for each id, got 4"):
        things.upsert(IDS, VECTORS, TABLE.select(NAMES)[:4])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: things.upsert(IDS, only(VECTORS, "__arrow_c_stream__")), things.get().to_polars):
        with pytest.raises(errors.InputError, match=r"needs pyarrow .*: pip install pyarrow"):
            call()
    assert things.count() == 0


def test_tables_come_out(things):
    """A table of results goes in again as it was."""
    things.upsert(IDS, VECTORS, FIELDS, TEXTS)
    table = things.get(IDS).to_arrow()
    assert table.column_names == ["id", "document", *NAMES, "vector"]
    assert table.select(["id", "vector", *NAMES]).equals(TABLE.select(["id", "vector", *NAMES]))
    things.upsert(table["id"], table["vector"], table.select(NAMES), table["document"])
    check(things)
    hits = things.search(VECTORS[1], k=3)
    frame = hits.to_pandas()
    assert list(frame["id"]) == [hit.id for hit in hits]
    assert list(frame["score"]) == [hit.score for hit in hits]
    assert "vector" not in frame
    assert things.recommend(["id-1"], k=2).to_polars()["score"].dtype == pl.Float64
    (one, two) = things.search(VECTORS[:2], k=2, include_vectors=True)
    assert one.to_polars()["vector"].to_list()[0] == VECTORS[0].tolist()
    assert two.to_arrow()["vector"].type == pa.list_(pa.float32(), DIM)
    scroll = things.scroll(include_vectors=False)
    first = next(scroll)
    assert set(scroll.to_polars()["id"]) == set(IDS) - {first.id}
    assert things.scroll().to_pandas().shape == (N, 2 + len(NAMES) + 1)
    assert things.search(VECTORS[0], where={"lang": "none"}).to_arrow().column_names == ["id", "score", "document"]
    assert things.get([]).to_pandas().empty

    async def main():
        async with ev.aio.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
            twin = await store.collection("things", DIM)
            await twin.upsert(table["id"], table["vector"], table.select(NAMES))
            found = await twin.search(VECTORS[0], k=1)
            scroll = twin.scroll(include_vectors=False)
            names = [(await anext(scroll)).id, *(await scroll.to_arrow())["id"].to_pylist()]
            await scroll.aclose()
            return found.to_polars()["id"].to_list(), sorted(names)

    assert asyncio.run(main()) == (["id-0"], IDS)


def test_types_of_columns(things):
    """What Arrow would change is refused, with the name of the key and without the value."""
    key = uuid.uuid4()
    zone = dt.timezone(dt.timedelta(hours=2))
    fields = {"id": 1, "metadata.id": 2, "score": key, "at": TIME.replace(tzinfo=zone), "money": Decimal("1.50")}
    fields |= {"pair": (1, 2), "mixed": 1, "raw": b"x"}
    things.upsert([3, 4], VECTORS[:2], [fields, {"mixed": 0.5}])
    row = things.get().to_arrow().to_pylist()[0 if things.get()[0].id == 3 else 1]
    assert row["id"] == 3
    assert (row["metadata.id"], row["metadata.metadata.id"], row["metadata.score"]) == (1, 2, str(key))
    assert row["at"] == fields["at"]
    assert (row["money"], row["pair"], row["mixed"], row["raw"]) == (Decimal("1.50"), [1, 2], 1.0, b"x")
    for values in (
        ["secret", 1],
        [True, 1],
        [2**70, 1],
        [2**53 + 1, 0.5],
        [DAY, TIME],
        [TIME, TIME.replace(tzinfo=dt.UTC)],
        [b"secret", "x"],
        [["secret", 1], []],
        [{"k": "secret"}, {"k": 1}],
        [{"k": "secret"}, "x"],
    ):
        things.upsert([3, 4], VECTORS[:2], [{"odd": value} for value in values])
        with pytest.raises(errors.InputError, match=r"metadata 'odd(\.k)?' has") as caught:
            things.get().to_arrow()
        assert "secret" not in str(caught.value)
    things.upsert([key], VECTORS[:1])
    things.delete([3, 4])
    assert things.get().to_arrow()["id"].to_pylist() == [str(key)]
    things.upsert([str(key)], VECTORS[:1])
    with pytest.raises(errors.InputError, match="two ids have the same text"):
        things.get().to_polars()


def test_the_page():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        names = {"docs": store.collection("docs", 2)}
        for block in BLOCKS:
            exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102
            assert names["docs"].count({"year": {"gte": 2024}}) == 2
        assert list(names["hits"].to_pandas().columns) == ["id", "score", "document", "lang", "year"]
