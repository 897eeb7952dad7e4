"""The contract, kept by pgvector over records in PostgreSQL."""

from contextlib import closing

import pytest

from encvec_store.errors import StaleConfigError
from encvec_store.indexes.pgvector import PgvectorIndex, connect
from encvec_store.indexes.protocol import BringsEnvelopes, KeepsEnvelopes, KeepsFiles, VectorIndex
from encvec_store.storage import CollectionSpec, MemoryStore
from encvec_store.storage.postgres import PostgresStore, Source
from tests.indexes.contract import IndexContract, queries
from tests.kits.indexes import Place
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, batch, kept


class Contract(IndexContract):
    index_kind = "none"

    @pytest.fixture
    def place(self, pg_dsn):
        def open_store():
            return PostgresStore(pg_dsn, pool_size=4, index=self.index_kind)

        with closing(Place(open_store, PgvectorIndex)) as place:
            yield place

    @pytest.mark.parametrize("dim", [3, DIM])
    def test_content_replaced_while_it_is_read(self, index, records, other, monkeypatch, dim):
        """Between the making of a statement and its run: the tables it names are gone."""
        records.put(batch(range(40)), under=CONFIG)
        spec = CollectionSpec(SPEC.tenant, SPEC.name, dim, WIDTH)
        index.flush()
        make, replaced = index._searcher._statements.search, []

        def search(*given):
            made = make(*given)
            if not replaced:
                replaced.append(True)
                other.replace([kept(other, range(40), seed=1, spec=spec)], CONFIG, under=CONFIG, index_dim=dim)
            return made

        monkeypatch.setattr(index._searcher._statements, "search", search)
        if dim == DIM:
            found = index.candidates({1: queries()}, 40)
            assert [sorted(rows.tolist()) for rows in found] == [records.rows().tolist()] * 3
        else:
            with pytest.raises(StaleConfigError):
                index.candidates({1: queries()}, 5)
        assert replaced
        self.agrees(index, records, dim=dim)

    @pytest.mark.parametrize("partitions", [(1,), (1, 2)])
    def test_a_search_of_one_query_is_one_statement(self, index, records, other, monkeypatch, partitions):
        """It brings envelopes and small payloads along, and sees what another process wrote without asking."""
        for partition in partitions:
            records.put(batch(range(100 * partition, 100 * partition + 50), partition=partition), under=CONFIG)
        index.flush()
        probes = {partition: queries(1, seed=partition) for partition in partitions}
        index.nearest(probes, 5)
        other.remove(other.rows()[:3])
        read, asked = Source.read, []
        monkeypatch.setattr(Source, "read", lambda self, *more: asked.append(1) or read(self, *more))
        found = index.nearest(probes, 20)
        assert len(asked) == 1
        assert len(found.rows) == 20
        assert set(found.payloads) == set(found.rows.tolist()) <= set(records.rows().tolist())


class TestScan(Contract):
    pass


class TestHnsw(Contract):
    exact = False
    index_kind = "hnsw"

    def test_replace_comes_indexed_and_a_closed_index_is_out_of_it(self, place, index, records):
        """The records call the index in the transaction of `replace`, as long as it is open."""
        records.put(batch(range(50)), under=CONFIG)
        rows = records.rows()
        records.replace([batch(range(50), rows=rows, seed=1)], CONFIG, under=CONFIG)
        assert index.stats()["index"] == "hnsw"
        assert index.stats()["bytes"]["index"] > 0
        index.close()
        records.replace([batch(range(50), rows=rows, seed=2)], CONFIG, under=CONFIG)
        assert place.index(place.records()).stats()["index"] == "exact"


def test_capabilities(pg_dsn):
    connection = connect(f"{pg_dsn}&device=auto&index=none")
    try:
        index: VectorIndex = connection.index(connection.store.create(SPEC, CONFIG))
        assert isinstance(index, BringsEnvelopes)
        assert not isinstance(index, KeepsEnvelopes | KeepsFiles)
        assert connection.device == "auto"
        with pytest.raises(TypeError, match="over records in PostgreSQL, got MemoryRecords"):
            connection.index(MemoryStore().create(SPEC, CONFIG))
    finally:
        connection.store.close()
