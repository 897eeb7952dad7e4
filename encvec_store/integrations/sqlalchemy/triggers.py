"""The triggers that write `<table>_<column>_rows`, as SQL that needs no keys and not this package.

Inserts and deletes are noted by statement, in one step for all their rows. Updates are noted by row, and only those
that change the vector or the primary key. One statement may give a row the key that another one had, so of a key's
entries the oldest is the one that is gone. The function runs with the rights of its owner, so whoever may write the
table needs no rights on the companion tables; and nobody else may use it in a trigger. All names in it have their
schema. A trigger that was disabled for a while is not trusted again: `FOLLOWED_NAME` says who made it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, event, text
from sqlalchemy.dialects import postgresql

from ...crypto.envelope import KEY_VERSION
from .companions import INCARNATION_NAME, Companions

__all__ = ["FOLLOWED_NAME", "KINDS", "install", "install_sql", "listen_to", "remove_sql"]

KINDS = ("insert", "update", "delete", "truncate")
FOLLOWED_NAME = "followed"
"""The blob with the number of the transaction that made the triggers, as text. Disabling one changes its number."""
_quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]

_FUNCTION = """
CREATE OR REPLACE FUNCTION @function@() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    writer bigint := pg_current_xact_id()::text::bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO @rows@ (xid, version, @keys@)
            SELECT writer, @version@, @new_keys@ FROM encvec_new AS n WHERE n.@cell@ IS NOT NULL;
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE @rows@ AS c SET gone = true, xid = writer, @erased@ FROM encvec_old AS o CROSS JOIN LATERAL
            (SELECT @oldest@ AS row FROM @rows@ AS e WHERE @same@ AND NOT e.gone) AS f WHERE c.row = f.row;
    ELSIF TG_OP = 'TRUNCATE' THEN
        UPDATE @rows@ AS c SET gone = true, xid = writer, @erased@ WHERE NOT c.gone;
    ELSE
        UPDATE @rows@ AS c SET gone = true, xid = writer, @erased@
            WHERE c.row = (SELECT @oldest@ FROM @rows@ AS e WHERE @same_old@ AND NOT e.gone);
        IF NEW.@cell@ IS NOT NULL THEN
            INSERT INTO @rows@ (xid, version, @keys@) SELECT writer, @version@, @new_keys@ FROM (SELECT NEW.*) AS n;
        END IF;
    END IF;
    RETURN NULL;
END $function$;
REVOKE ALL ON FUNCTION @function@() FROM PUBLIC
"""
_TRIGGERS = """
CREATE OR REPLACE TRIGGER @insert@ AFTER INSERT ON @table@ REFERENCING NEW TABLE AS encvec_new
    FOR EACH STATEMENT EXECUTE FUNCTION @function@();
CREATE OR REPLACE TRIGGER @delete@ AFTER DELETE ON @table@ REFERENCING OLD TABLE AS encvec_old
    FOR EACH STATEMENT EXECUTE FUNCTION @function@();
CREATE OR REPLACE TRIGGER @truncate@ AFTER TRUNCATE ON @table@ FOR EACH STATEMENT EXECUTE FUNCTION @function@();
CREATE OR REPLACE TRIGGER @update@ AFTER UPDATE ON @table@ FOR EACH ROW WHEN (@changed@)
    EXECUTE FUNCTION @function@()
"""
# A table without rows begins a new life: what was sealed for an earlier one must not open in it. After a restore into
# another cluster, transaction numbers may be larger than any of its own.
_BEGIN = """
DELETE FROM @blobs@ WHERE NOT EXISTS (SELECT FROM @table@);
INSERT INTO @blobs@ (name, part, key_version, content)
    VALUES ('@incarnation@', 0, 0, decode(replace(gen_random_uuid()::text, '-', ''), 'hex')) ON CONFLICT DO NOTHING;
UPDATE @rows@ SET gone = true, xid = pg_current_xact_id()::text::bigint, @erased@
    WHERE NOT gone OR xid > pg_current_xact_id()::text::bigint;
INSERT INTO @rows@ (xid, version, @keys@)
    SELECT pg_current_xact_id()::text::bigint, @version@, @new_keys@ FROM @table@ AS n WHERE n.@cell@ IS NOT NULL
"""
_FOLLOWED = """
INSERT INTO @blobs@ (name, part, key_version, content)
    SELECT '@followed@', 0, 0, convert_to(max(xmin::text), 'UTF8') FROM pg_trigger
        WHERE tgrelid = $1 AND tgname = ANY($2)
    ON CONFLICT (name, part) DO UPDATE SET content = excluded.content
"""
# A writer reads the incarnation, then writes the table: locks are taken in the same order. A transaction whose snapshot
# is older than the locks would miss rows, unless there were never any.
_INSTALL = """DO $install$
DECLARE
    home text;
    level text := current_setting('transaction_isolation');
    size bigint := coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(to_regclass(@table_text@))),
        pg_relation_size(to_regclass(@table_text@)));
BEGIN
    IF to_regclass(@table_text@) IS NULL OR to_regclass(@rows_text@) IS NULL OR to_regclass(@blobs_text@) IS NULL THEN
        RETURN;
    END IF;
    SELECT quote_ident(n.nspname) INTO STRICT home FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = @table_text@::regclass;
    IF level NOT IN ('read committed', 'read uncommitted') AND size > 0 THEN
        RAISE EXCEPTION USING MESSAGE = 'the triggers of ' || @table_text@ || ' must be made at READ COMMITTED, got '
            || upper(level) || ': at that level rows that are committed meanwhile would be missed';
    END IF;
    EXECUTE replace('LOCK TABLE @blobs_name@ IN ACCESS EXCLUSIVE MODE', '@home@', home);
    EXECUTE replace($function_sql$@create@$function_sql$, '@home@', home);
    EXECUTE replace($triggers$@triggers@$triggers$, '@home@', home);
    EXECUTE replace($begin$@begin@$begin$, '@home@', home);
    EXECUTE replace($followed$@marks@$followed$, '@home@', home) USING @table_text@::regclass, @names@;
END $install$"""


def _version(cell: str) -> str:
    """Return SQL for the key version in the header of a cell; 0 if there is none."""
    at = KEY_VERSION.start
    parts = (f"get_byte({cell}, {at + i})::bigint << {8 * (3 - i)}" for i in range(4))
    added = " | ".join(f"({part})" for part in parts)
    return f"CASE WHEN octet_length({cell}) >= {at + 4} THEN {added} ELSE 0 END"


def _names(companions: Companions) -> dict[str, str]:
    keys = [(_quote(mine.name), _quote(key.name)) for mine, key in _pairs(companions)]
    cell = _quote(companions.column.name)
    function = _quote(f"{companions.base}_follow")
    return {
        "function": f"@home@.{function}",
        "rows": f"@home@.{_quote(companions.rows.name)}",
        "blobs": f"@home@.{_quote(companions.blobs.name)}",
        "table": f"@home@.{_quote(companions.table.name)}",
        "keys": ", ".join(mine for mine, _ in keys),
        "new_keys": ", ".join(f"n.{key}" for _, key in keys),
        "erased": ", ".join(f"{mine} = NULL" for mine, _ in keys),
        "same": " AND ".join(f"e.{mine} = o.{key}" for mine, key in keys),
        "same_old": " AND ".join(f"e.{mine} = OLD.{key}" for mine, key in keys),
        "oldest": "min(e.row + 0)",  # a sum, lest it reads all entries in the order of the primary key
        "changed": " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in (cell, *(key for _, key in keys))),
        "cell": cell,
        "version": _version(f"n.{cell}"),
        "incarnation": INCARNATION_NAME,
        "followed": FOLLOWED_NAME,
        **{kind: _quote(f"{companions.base}_{kind}") for kind in KINDS},
    }


def _pairs(companions: Companions) -> list[tuple[Any, Any]]:
    return list(zip(companions.keys, companions.table.primary_key.columns, strict=True))


def _filled(template: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        template = template.replace(f"@{name}@", value)
    return template


def _place(table: Table, schema: str | None) -> str:
    return _literal(f"{_quote(schema)}.{_quote(table.name)}" if schema else _quote(table.name))


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


def install_sql(companions: Companions, schema: str | None) -> str:
    """Return one statement that makes function and triggers, and notes the rows that are there.

    It does nothing while one of the three tables is missing.
    """
    names = _names(companions)
    parts = {"create": _FUNCTION, "triggers": _TRIGGERS, "begin": _BEGIN, "marks": _FOLLOWED}
    filled = {name: _filled(part.strip(), names) for name, part in parts.items()}
    tables = {"table": companions.table, "rows": companions.rows, "blobs": companions.blobs}
    given = {f"{name}_text": _place(table, schema) for name, table in tables.items()}
    given["blobs_name"] = names["blobs"].replace("'", "''")
    given["names"] = f"ARRAY[{', '.join(_literal(f'{companions.base}_{kind}') for kind in KINDS)}]"
    return _filled(_INSTALL, given | filled)


def remove_sql(companions: Companions, schema: str | None) -> str:
    """Return one statement that drops the function and its triggers."""
    name = _quote(f"{companions.base}_follow")
    return f"DROP FUNCTION IF EXISTS {_quote(schema) + '.' if schema else ''}{name}() CASCADE"


def install(connection: Connection, companions: Companions) -> None:
    """Make function and triggers, and note the rows that are there."""
    _run(connection, install_sql(companions, connection.schema_for_object(companions.table)))


def listen_to(companions: Companions) -> None:
    """Make the triggers when the tables are made, and drop the function when the table is dropped."""

    def made(_: Any, connection: Connection, **options: Any) -> None:
        if connection.dialect.name == "postgresql":
            install(connection, companions)

    def dropped(_: Any, connection: Connection, **options: Any) -> None:
        if connection.dialect.name == "postgresql":
            _run(connection, remove_sql(companions, connection.schema_for_object(companions.table)))

    for table in (companions.table, companions.blobs):
        event.listen(table, "after_create", made)
    event.listen(companions.table, "after_drop", dropped)


def _run(connection: Connection, statement: str) -> None:
    connection.execute(text(statement.replace(":", "\\:")))
