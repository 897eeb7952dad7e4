"""Alembic's environment for the tables of stores. `encvec_store.migrate` opens the transaction and runs it.

It takes from `context.config.attributes`: `connection` (or an engine), `schema` (None for SQLite), and `before`
(statements at the beginning of an offline script).
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, MetaData

from encvec_store.storage.revisions import VERSION_TABLE

SCHEMA: str | None = context.config.attributes.get("schema")


def tables() -> MetaData:
    """Return the tables that the code declares, for Alembic to compare."""
    if SCHEMA is None:
        from encvec_store.storage.sqlite.tables import metadata

        return metadata
    from encvec_store.storage.postgres.tables import build_metadata

    return build_metadata(SCHEMA)


def ours(name: str | None, kind: str, parents: Any) -> bool:
    """Compare only tables in our schema, without those of collections: they inherit changes from their parents."""
    if SCHEMA is None:
        return True
    from encvec_store.storage.postgres.tables import is_content_table

    if kind == "schema":
        return name == SCHEMA
    return kind != "table" or not is_content_table(str(name))


def note_in_meta(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """Write revision and format into `meta`, which all code reads before it uses the tables."""
    at = f"{ctx.dialect.identifier_preparer.quote(SCHEMA)}." if SCHEMA else ""
    for head in heads:  # none after the last downgrade, which drops `meta` too
        script = context.script.get_revision(head)
        for name, value in (("revision", int(head)), ("format", script.module.min_reader)):
            ctx.execute(
                f"INSERT INTO {at}meta (name, value) VALUES ('{name}', {value})"  # noqa: S608
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            )


def run(before: tuple[str, ...] = (), **how: Any) -> None:
    """Run the requested revisions."""
    context.configure(
        target_metadata=tables(),
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
        include_schemas=SCHEMA is not None,
        include_name=ours,
        on_version_apply=note_in_meta,
        **how,
    )
    with context.begin_transaction():
        for statement in before:
            context.execute(statement)
        context.run_migrations()


connectable: Connection | Engine | None = context.config.attributes.get("connection")
if context.is_offline_mode():
    run(
        tuple(context.config.attributes.get("before", ())),
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
elif isinstance(connectable, Engine):
    with connectable.begin() as connection:
        run(connection=connection)
else:
    run(connection=connectable)
