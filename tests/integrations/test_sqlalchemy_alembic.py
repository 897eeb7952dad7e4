"""Alembic: autogenerate sees no difference after create_all, and its own migration makes the same tables."""

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect

from encvec_store.integrations.sqlalchemy import render_item
from tests.integrations.orm_kit import DIM, models, url


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


def test_nothing_to_do_after_create_all(connection, context):
    made = models()
    made.Base.metadata.create_all(connection)
    assert compare_metadata(context, made.Base.metadata) == []


def test_the_migration_makes_the_same_and_holds_no_keys(connection, context):
    made = models()
    script = produce_migrations(context, made.Base.metadata)
    imports = set()
    code = render_python_code(script.upgrade_ops, render_item=render_item, imports=imports, migration_context=context)
    assert f"sa.Column('embedding', pgvector.sqlalchemy.VECTOR({DIM}), nullable=True)" in code
    assert "sa.Column('embedding_sealed', sa.LargeBinary(), nullable=True)" in code
    assert "EncryptedVector" not in code
    assert "vector_ip_ops" in code
    place = {"op": Operations(context)}
    body = "\n".join(line.removeprefix("    ") for line in code.splitlines())
    exec("import sqlalchemy as sa\nimport pgvector.sqlalchemy\n" + body, place)  # noqa: S102
    migrated = shape(connection)
    assert compare_metadata(context, made.Base.metadata) == []
    made.Base.metadata.drop_all(connection)
    made.Base.metadata.create_all(connection)
    assert shape(connection) == migrated


def test_another_dimension_is_a_difference(connection, context):
    models().Base.metadata.create_all(connection)
    other = models(metric="l2", max_norm=3.0)  # lifted: two coordinates more
    changes = [change for group in compare_metadata(context, other.Base.metadata) for change in group]
    assert {change[0] for change in changes} == {"modify_type"}
    assert {change[3] for change in changes} == {"embedding"}
