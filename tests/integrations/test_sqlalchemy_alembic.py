"""Alembic: autogenerate finds exactly what differs, index options included, and its migration makes that."""

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR
from sqlalchemy import BigInteger, Column, Index, MetaData, Table, cast, create_engine, inspect, select, text
from sqlalchemy.orm import Session

import encvec_store as ev
from encvec_store.integrations.sqlalchemy import hnsw_index, nearest
from encvec_store.integrations.sqlalchemy.autogenerate import include_name, leave_out_stores, render_item
from tests.kits.orm import DIM, SAP, models, url, vectors


@pytest.fixture
def connection(pg_dsn):
    engine = create_engine(url(pg_dsn))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def context(connection):
    return MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})


def shape(connection):
    seen = inspect(connection)
    seen.clear_cache()
    columns = {
        t: {c["name"]: (str(c["type"]), c["nullable"]) for c in seen.get_columns(t)} for t in seen.get_table_names()
    }
    indexes = {t: [(i["name"], i["column_names"]) for i in seen.get_indexes(t)] for t in seen.get_table_names()}
    return columns, indexes


def run(code, context):
    """Execute the body of a rendered migration."""
    body = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    imports = "import sqlalchemy as sa\nimport pgvector.sqlalchemy\n"
    imports += "from sqlalchemy.dialects import postgresql\n"
    imports += "from encvec_store.integrations.sqlalchemy import converting\n"
    exec(imports + body, {"op": Operations(context)})  # noqa: S102


def versions(connection, before, after):
    """Return the rendered upgrade and downgrade from one set of models to another."""
    context = MigrationContext.configure(connection, opts={"target_metadata": after.Base.metadata})
    script = produce_migrations(context, after.Base.metadata)
    both = script.upgrade_ops, script.downgrade_ops
    return context, [render_python_code(ops, render_item=render_item, migration_context=context) for ops in both]


@pytest.mark.parametrize("way", ["to sealed", "to pair"])
def test_the_change_of_a_column_and_back(connection, way):
    """Every vector is encrypted anew, in both directions, and is searched afterwards."""
    keyset, v = ev.Keyset.create("memory:"), vectors(30)
    sealed, pair = models(keyset), models(keyset, scheme=SAP)
    before, after = (pair, sealed) if way == "to sealed" else (sealed, pair)
    before.Base.metadata.create_all(connection)
    with Session(connection) as session:
        session.add_all([before.Item(title=str(i), embedding=v[i]) for i in range(29)])
        session.add_all([before.Item(title="none"), before.Auto(title="0", embedding=v[0])])
        session.flush()

        def check(made):
            session.expunge_all()
            for title, vector in session.execute(select(made.Item.title, made.Item.embedding)):
                assert (vector is None) if title == "none" else (vector == v[int(title)]).all()
            (hit,) = nearest(session, select(made.Auto), made.Auto.embedding, v[0], 1)
            assert hit.item.title == "0"
            found = nearest(session, select(made.Item.title), made.Item.embedding, v[7], 30)
            assert len(found) == 29
            assert found[0].item == "7"

        first = shape(connection)
        context, (up, down) = versions(connection, before, after)
        assert "EncryptedVector" not in up + down
        run(up, context)
        assert compare_metadata(context, after.Base.metadata) == []
        check(after)
        run(down, context)
        assert shape(connection)[0].keys() == first[0].keys()
        assert compare_metadata(MigrationContext.configure(connection), before.Base.metadata) == []
        check(before)


def test_the_migration_of_a_sealed_column(connection):
    made = models()
    context, (up, down) = versions(connection, None, made)
    assert "sa.Column('embedding', sa.LargeBinary(), nullable=True)" in up
    assert "items_embedding_follow" in up
    run(up, context)
    assert compare_metadata(context, made.Base.metadata) == []
    with Session(connection) as session:
        session.add(made.Item(title="a", embedding=vectors(1)[0]))
        (hit,) = nearest(session, select(made.Item), made.Item.embedding, vectors(1)[0], 1)
        assert hit.item.title == "a"
        connection.execute(text("DROP TRIGGER items_embedding_update ON items"))
        assert compare_metadata(context, made.Base.metadata) == [("add_triggers", "items_embedding")]
    run(down, context)
    assert shape(connection)[0] == {}
    assert connection.scalar(text("SELECT count(*) FROM pg_proc WHERE proname LIKE '%follow'")) == 0


def definitions(connection):
    return dict(
        connection.execute(text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")).all()
    )


def test_nothing_to_do_after_create_all(connection, context):
    made = models(scheme=SAP)
    made.Base.metadata.create_all(connection)
    assert compare_metadata(context, made.Base.metadata) == []


def test_the_migration_makes_the_same_and_holds_no_keys(connection, context):
    made = models(scheme=SAP)
    script = produce_migrations(context, made.Base.metadata)
    imports = set()
    code = render_python_code(script.upgrade_ops, render_item=render_item, imports=imports, migration_context=context)
    assert f"sa.Column('embedding', pgvector.sqlalchemy.VECTOR({DIM}), nullable=True)" in code
    assert "sa.Column('embedding_sealed', sa.LargeBinary(), nullable=True)" in code
    assert "EncryptedVector" not in code
    assert "vector_ip_ops" in code
    run(code, context)
    migrated = shape(connection)
    assert compare_metadata(context, made.Base.metadata) == []
    made.Base.metadata.drop_all(connection)
    made.Base.metadata.create_all(connection)
    assert shape(connection) == migrated


def test_another_dimension_is_a_difference(connection, context):
    models(scheme=SAP).Base.metadata.create_all(connection)
    other = models(metric="l2", max_norm=3.0, scheme=SAP)  # lifted: two coordinates more
    changes = [change for group in compare_metadata(context, other.Base.metadata) for change in group]
    assert {change[0] for change in changes} == {"modify_type"}
    assert {change[3] for change in changes} == {"embedding"}


def things(*indexes, schema=None):
    """Return metadata of a table with every type of pgvector, and these indexes."""
    metadata = MetaData(schema=schema)
    table = Table(
        "things",
        metadata,
        Column("id", BigInteger, primary_key=True),
        Column("plain", VECTOR(4)),
        Column("loose", VECTOR()),
        Column("half", HALFVEC(4)),
        Column("bits", BIT(8)),
    )
    for index in indexes:
        index(table)
    return metadata


def hnsw(name="ix", column="plain", ops="vector_ip_ops", method="hnsw", **options):
    def add(table):
        Index(
            name,
            table.c[column],
            postgresql_using=method,
            postgresql_with=options,
            postgresql_ops={column: ops} if ops else {},
        )

    return add


SAME = {
    "as it was": ([hnsw(m=8, ef_construction=32)], [hnsw(m=8, ef_construction=32)]),
    "defaults written out": ([hnsw()], [hnsw(m=16, ef_construction=64)]),
    "defaults left out": ([hnsw(m=16, ef_construction=64)], [hnsw()]),
    "an option as text": ([hnsw(m=8)], [hnsw(m="8")]),
    "lists": ([hnsw(method="ivfflat", lists=10)], [hnsw(method="ivfflat", lists=10)]),
    "other types": (
        [hnsw("a", "half", "halfvec_l2_ops"), hnsw("b", "bits", "bit_hamming_ops", m=4)],
        [hnsw("a", "half", "halfvec_l2_ops"), hnsw("b", "bits", "bit_hamming_ops", m=4)],
    ),
    "an ordinary index": ([hnsw(column="id", ops=None, method="btree")], [hnsw(column="id", ops=None, method=None)]),
}
CHANGED = {
    "m": ([hnsw(m=8)], [hnsw(m=9)]),
    "m, by default": ([hnsw(m=8)], [hnsw()]),
    "ef_construction": ([hnsw()], [hnsw(ef_construction=65)]),
    "operator class": ([hnsw()], [hnsw(ops="vector_cosine_ops")]),
    "method": ([hnsw(method="ivfflat", lists=10)], [hnsw()]),
    "lists": ([hnsw(method="ivfflat", lists=10)], [hnsw(method="ivfflat", lists=11)]),
    "from btree": ([hnsw(column="id", ops=None, method="btree")], [hnsw()]),
}


@pytest.mark.parametrize("schema", [None, "elsewhere"])
@pytest.mark.parametrize("case", SAME)
def test_an_unchanged_index_is_no_difference(connection, case, schema):
    before, after = SAME[case]
    context = MigrationContext.configure(connection, opts={"include_schemas": schema is not None})
    connection.execute(text("CREATE SCHEMA elsewhere"))
    things(*before, schema=schema).create_all(connection)
    for column in ("plain", "half"):  # how bytes are kept is nothing that models say
        connection.execute(text(f"ALTER TABLE {schema or 'public'}.things ALTER {column} SET STORAGE EXTERNAL"))
    assert compare_metadata(context, things(*after, schema=schema)) == []


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_index_is_made_anew_and_back_again(connection, context, case):
    before, after = CHANGED[case]
    things(*before).create_all(connection)
    first = definitions(connection)
    assert [change[0] for change in compare_metadata(context, things(*after))] == ["remove_index", "add_index"]
    script = produce_migrations(context, things(*after))
    run(render_python_code(script.upgrade_ops, migration_context=context), context)
    assert compare_metadata(context, things(*after)) == []
    assert definitions(connection) != first
    run(render_python_code(script.downgrade_ops, migration_context=context), context)
    assert compare_metadata(context, things(*before)) == []
    assert definitions(connection) == first


def test_a_changed_option_of_an_encrypted_column(connection, context):
    models(scheme=SAP).Base.metadata.create_all(connection)
    other = models(scheme=SAP)
    (index,) = other.Item.__table__.indexes
    other.Item.__table__.indexes.remove(index)
    hnsw_index(other.Item.embedding, m=24, ef_construction=96)
    changes = compare_metadata(context, other.Base.metadata)
    assert [(kind, index.name) for kind, index in changes] == [
        ("remove_index", "ix_items_embedding_hnsw"),
        ("add_index", "ix_items_embedding_hnsw"),
    ]


def by_halves(m):
    """Return what adds a partial index on a cast."""

    def add(table):
        part = cast(table.c.loose, HALFVEC(4)).label("part")
        options = {"postgresql_ops": {"part": "halfvec_ip_ops"}, "postgresql_with": {"m": m}}
        Index("ix", part, postgresql_using="hnsw", postgresql_where=text("id > 3"), **options)

    return add


def test_an_index_on_an_expression(connection, context):
    things(by_halves(5)).create_all(connection)
    first = definitions(connection)
    assert compare_metadata(context, things(by_halves(5))) == []
    script = produce_migrations(context, things(by_halves(6)))
    run(render_python_code(script.upgrade_ops, migration_context=context), context)
    assert compare_metadata(context, things(by_halves(6))) == []
    run(render_python_code(script.downgrade_ops, migration_context=context), context)
    assert definitions(connection) == first


# ------------------------------------------------------------------------------------------ beside a store


@pytest.mark.parametrize("where", ["encvec", "vectors", None])
def test_the_tables_of_a_store_are_not_dropped(pg_dsn, connection, where):
    """The store is in its own schema, or beside the application's tables in the default one."""
    join = "&" if "?" in pg_dsn else "?"
    made = models(scheme=SAP)
    made.Base.metadata.create_all(connection)
    Table("mine", MetaData(), Column("id", BigInteger, primary_key=True)).create(connection)
    connection.commit()
    with ev.connect(f"{pg_dsn}{join}schema={where or 'public'}", keyset=ev.Keyset.create("memory:")) as store:
        store.collection("docs", dim=3).upsert(["a"], [[1, 2, 3]])

    def dropped(filtered):
        options = {"include_schemas": True, **({"include_name": filtered} if filtered else {})}
        context = MigrationContext.configure(connection, opts=options)
        changes = compare_metadata(context, made.Base.metadata)
        return sorted({change[1].name for change in changes if change[0] == "remove_table"})

    everything = dropped(None)
    assert {"mine", "collections", "records", "meta"} <= set(everything)
    assert any(name.startswith("records_") for name in everything)
    assert dropped(include_name if where == "encvec" else leave_out_stores(where)) == ["mine"]
    assert dropped(leave_out_stores("elsewhere")) == everything
