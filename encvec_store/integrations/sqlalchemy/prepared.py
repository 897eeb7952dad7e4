"""The statements of searches of a sealed column. They are made once for equal statements: making them costs more than
running them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, BigInteger, Integer, Select, Table, all_, and_, any_, bindparam, or_, tuple_

from ...errors import InputError
from .columns import column_of
from .following import joined
from .sharing import head_columns
from .types import EncryptedVector

__all__ = ["ColumnSearch", "SearchStatements"]

_KEPT = 64
"""Columns and aliases whose SQL is kept, and statements of each."""


class ColumnSearch:
    """SQL over one sealed column of a table or alias."""

    def __init__(self, column: Any) -> None:
        self.element = _element(column)
        self.kind: EncryptedVector = column_of(column).type  # type: ignore[assignment]
        companions = self.kind.companions
        self.keys = self.kind.keys_of(self.element)
        self.loaded = _loaded_keys(self.element, self.keys)
        self.packed = self.kind.packed(self.element)
        self.entries = companions.rows.alias("encvec_rows")
        c = self.entries.c
        dead = all_(bindparam("encvec_dead", type_=ARRAY(BigInteger)))
        self.joined = and_(joined(companions, self.entries, self.keys), ~c.gone, c.version != dead)
        # cache keys of aliases have no names: in a statement with two of them, each would pass for the other
        self._named = getattr(self.element, "table", None) is not None and not _is_alias(self.element)
        self._asked: dict[Any, tuple[Any, SearchStatements]] = {}

    @classmethod
    def of(cls, column: Any) -> ColumnSearch:
        """Return the SQL of a mapped attribute or column, the same each time."""
        element = _element(column)
        kept: dict[int, ColumnSearch] = column_of(column).type.companions.searched  # type: ignore[attr-defined]
        found = kept.get(id(element))  # it holds the element, so this number stands for no other one
        if found is None:
            found = _put(kept, id(element), cls(column))
        return found

    def asked(self, statement: Select[Any]) -> tuple[SearchStatements, dict[str, Any]]:
        """Return the statements for one that is searched, and values of parameters that do not depend on the query."""
        dead, key = {"encvec_dead": list(self.kind.cipher.dead)}, self._key(statement)
        if key is None:
            return SearchStatements(self, statement), dead
        known = self._asked.get(key.key)
        if known is None:
            known = _put(self._asked, key.key, (key, SearchStatements(self, statement)))
        binds = zip(known[0].bindparams, key.bindparams, strict=True)
        return known[1], {**dead, **{mine.key: given.effective_value for mine, given in binds}}

    def _key(self, statement: Any) -> Any:
        """Return the cache key; None if a statement with an equal one may yet be another."""
        if not self._named or statement._with_options or statement.get_execution_options():
            return None
        key = statement._generate_cache_key()
        if key is None or any(bind.callable or bind.required for bind in key.bindparams):
            return None
        return key


class SearchStatements:
    """What is asked of the database in a search of one statement.

    `encvec_dead` are the key versions that open nothing any more.
    """

    def __init__(self, searched: ColumnSearch, statement: Select[Any]) -> None:
        if not isinstance(statement, Select):
            raise InputError(f"statement must be a select(...), got {type(statement).__name__}: select from it")
        distinct_on = statement._distinct_on or statement._pre_columns_clause is not None
        if statement._group_by_clauses or statement._having_criteria or distinct_on:
            raise InputError(
                "a search takes no statement with GROUP BY, HAVING and DISTINCT ON: it looks at the rows that may be"
                " nearest, before rows are grouped. Group its hits, or select from a subquery"
            )
        self._searched, self._statement = searched, statement
        self._made: dict[str, Any] = {}

    def columns(self, *columns: Any) -> Any:
        """Return the statement with other columns, without order, limits and locks."""
        asked: Any = self._statement.with_only_columns(*columns, maintain_column_froms=True)
        asked = asked.order_by(None).limit(None).offset(None)
        asked._for_update_arg = None  # only hits are locked
        asked._with_options = tuple(
            option for option in asked._with_options if getattr(option, "_is_criteria_option", False)
        )
        return asked

    def _entries(self, *columns: Any) -> Any:
        return self.columns(*columns).where(self._searched.joined)

    @property
    def ranked(self) -> Any:
        """Rows `encvec_rows` and those since `encvec_since`: number, keys, packed vector, and the head.

        The head is that of the table `encvec_table`.
        """
        made = self._made.get("ranked")
        if made is None:
            searched, c = self._searched, self._searched.entries.c
            head = head_columns(searched.kind.companions)
            rows = bindparam("encvec_rows", type_=ARRAY(BigInteger))
            since = bindparam("encvec_since", type_=BigInteger)
            made = self._entries(c.row, *searched.loaded, searched.packed, *head)
            made = self._made["ranked"] = made.where(or_(c.row == any_(rows), c.xid >= since))
        return made

    def passing(self, *, few: bool) -> Any:
        """Rows that the statement selects; `encvec_limit` of them if `few`."""
        name = "few" if few else "passing"
        made = self._made.get(name)
        if made is None:
            made = self._entries(self._searched.entries.c.row, self._searched.loaded[0])
            made = self._made[name] = made.limit(bindparam("encvec_limit", type_=Integer)) if few else made
        return made

    @property
    def loaded(self) -> Any:
        """What the statement itself selects, of the rows with the keys `encvec_keys`, and the packed vector."""
        made = self._made.get("loaded")
        if made is None:
            keys: Any = self._searched.keys
            if len(keys) == 1:  # an array: SQLAlchemy writes the SQL of an IN anew each time
                chosen = keys[0] == any_(bindparam("encvec_keys", type_=ARRAY(keys[0].type)))
            else:
                chosen = tuple_(*keys).in_(bindparam("encvec_keys", type_=tuple_(*keys).type, expanding=True))
            made = self._statement.add_columns(self._searched.packed).order_by(None).limit(None).offset(None)
            made = self._made["loaded"] = made.where(chosen)
        return made


def _element(column: Any) -> Any:
    return column.__clause_element__() if hasattr(column, "__clause_element__") else column


def _is_alias(element: Any) -> bool:
    entity = element._annotations.get("parententity")
    return not (isinstance(element.table, Table) if entity is None else entity.is_mapper)


def _put(kept: Any, key: Any, value: Any) -> Any:
    """Keep a value, and as many as that; the oldest goes. Another thread may do the same meanwhile."""
    while len(kept) >= _KEPT:
        kept.pop(next(iter(list(kept)), None), None)
    return kept.setdefault(key, value)


def _loaded_keys(element: Any, keys: list[Any]) -> list[Any]:
    """Return the key columns as the mapped class has them, so that its criteria count: those of a subclass."""
    entity = element._annotations.get("parententity")
    if entity is None:
        return keys
    columns = column_of(element).table.primary_key.columns
    properties = [entity.mapper.get_property_by_column(key) for key in columns]
    return [getattr(entity.entity, prop.key) for prop in properties]
