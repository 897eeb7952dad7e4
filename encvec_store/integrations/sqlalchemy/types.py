"""The column type `EncryptedVector`: one `bytea`, the sealed vector.

A cell is the vector envelope of docs/formats.md. To read it, the query selects primary key, incarnation of the table
and cell as one value; it is checked and opened here. Vectors are encrypted before an INSERT runs (`statements`) and
before the ORM's UPDATE (`mapping`). The bind processor refuses every other vector.
Under a scheme that the server ranks by, the type is a `RankedVector` (`ranked`), which has two columns.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt
from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    LargeBinary,
    Table,
    case,
    event,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ClauseElement, ColumnElement, Label
from sqlalchemy.types import TypeDecorator, TypeEngine

from ...data.arrays import Matrix
from ...errors import InputError, NormError, SchemeError
from ...sealing.config import CollectionConfig
from ..cipher import ColumnCipher, KeysetSource
from .companions import INCARNATION_NAME, Companions, declared
from .errors import unwrapped
from .identity import check_key, identity_expression
from .incarnations import incarnation_of
from .triggers import listen_to
from .values import Cell, opened, sendable_cell

__all__ = ["OPERATORS", "EncryptedVector"]

OPERATORS = {"cosine": "cosine_distance", "l2": "l2_distance", "ip": "max_inner_product"}
_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_count = itertools.count(1)
_made: weakref.WeakSet[Table] = weakref.WeakSet()
"""Tables that are whole: a column that is added now comes after the primary key."""


class EncryptedVector(TypeDecorator[Matrix]):
    """A vector that the database sees encrypted only. Use it in place of pgvector's `Vector(dim)`.

        embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(384, keyset=keyset))

    Values are (dim,) lists or arrays of numbers. They come back exactly, as read-only float32 arrays. The column is a
    `bytea`; `nearest` searches it. Two companion tables come with it. The primary key may have Integer, String, Text
    and Uuid columns. Loading raises AuthenticationError, with the row's key, if the keys are wrong or the data was
    altered, swapped or moved.

    Args:
        dim: coordinates of a vector.
        keyset: a `Keyset`, or a function that returns it at first use.
        tenant: each tenant has keys of its own.
        collection: each column has keys of its own, under this name. The default is "table.column"; after you rename
            a table or column, give the old name.
        metric: cosine, l2 or ip.
        scheme: `sealed`, the default; or `sap`, such as {"name": "sap", "beta": 2.0}, for a second column that the
            server ranks by. It falls to who has similar data: see docs/threat-model.md.
        max_norm: the largest length of a vector; `sap` needs it for l2 and ip.
        require_identity: refuse to write or read a row that is not bound to its primary key.
    """

    impl = LargeBinary
    cache_ok = True
    paired: ClassVar[bool] = False
    """True if the server ranks by a second column."""

    def __new__(cls, dim: int = 0, keyset: Any = None, *given: Any, **named: Any) -> EncryptedVector:
        """Return a `RankedVector` for a scheme that the server ranks by."""
        scheme = named.get("scheme", given[3] if len(given) > 3 else None)
        if cls is EncryptedVector and scheme is not None and _name_of(scheme) != "sealed":
            from .ranked import RankedVector

            return super().__new__(RankedVector)
        return super().__new__(cls)

    def __init__(
        self,
        dim: int,
        # no `*` here: SQLAlchemy leaves what is keyword-only out of its cache keys
        keyset: KeysetSource,
        tenant: str = "",
        collection: str | None = None,
        metric: str = "cosine",
        scheme: Mapping[str, Any] | str | None = None,
        max_norm: float | None = None,
        require_identity: bool = False,
    ) -> None:
        config = CollectionConfig.build(
            dim=dim,
            metric_name=metric,
            scheme_spec="sealed" if scheme is None else scheme,
            fields=None,
            max_norm=max_norm,
            oversample=None,
        )
        if config.ranked is not self.paired or (config.ranked and not config.index_dim):
            raise SchemeError(f"the scheme of a column must be 'sealed' or 'sap', got {config.scheme.name!r}")
        if config.cells > 1:
            raise SchemeError(
                f"cells must be 1 for a column, got {config.cells}: only collections search several cells"
            )
        if config.bounded and config.max_norm is None:
            raise NormError(f"metric {metric!r} needs max_norm, the largest length of a vector")
        super().__init__(*self._impl_arguments(config))
        self._config = config
        self._source = keyset
        self._given = collection
        self._column: Column[Any] | None = None
        self._companions: Companions | None = None
        self._cipher = None if collection is None else ColumnCipher(keyset, tenant, collection, config)
        # SQLAlchemy makes its cache keys of these attributes. A number stands for the keyset, and is never used again.
        self.dim = dim
        self.keyset = _numbers.setdefault(keyset, next(_count))
        self.tenant = tenant
        self.collection = collection
        self.metric = config.metric.name
        self.scheme = config.scheme
        self.max_norm = config.max_norm
        self.require_identity = require_identity

    def _impl_arguments(self, config: CollectionConfig) -> tuple[Any, ...]:
        return ()

    def __repr__(self) -> str:
        return f"EncryptedVector({self.dim}, metric={self.metric!r}, collection={self.collection!r})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type in the database. Raises InputError for a database other than PostgreSQL."""
        if dialect.name not in ("postgresql", "default"):
            raise unwrapped(InputError(f"EncryptedVector needs PostgreSQL, got {dialect.name}: use a store there"))
        return dialect.type_descriptor(self.impl_instance)

    @property
    def python_type(self) -> type[Any]:
        """The type of loaded values."""
        return np.ndarray

    @property
    def cipher(self) -> ColumnCipher:
        """The cipher of the column. Raises InputError if the type is in no table yet."""
        if self._cipher is None:
            raise InputError("this EncryptedVector has no keys: put it in a table, or give it a collection")
        return self._cipher

    @property
    def companions(self) -> Companions:
        """The companion tables of the column. Raises InputError if the type is in no table yet."""
        if self._companions is None:
            raise InputError("this EncryptedVector is in no table")
        return self._companions

    # -- the table

    def fresh(self) -> EncryptedVector:
        """Copy for another column, with keys of its own."""
        made: EncryptedVector = self.copy()
        made._column = made._companions = None
        if made._given is None:
            made._cipher = made.collection = None
        return made

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        event.listen(parent, "after_parent_attach", _attach)

    def _attached(self, column: Column[Any], table: Table) -> None:
        self._column = column
        if self._cipher is None:
            self.collection = f"{table.fullname}.{column.name}"
            self._cipher = ColumnCipher(self._source, self.tenant, self.collection, self._config)

    def _table_made(self, column: Column[Any], table: Table) -> None:
        """Do what needs the primary key of the table."""
        check_key(table, complete=False)
        if self._companions is None:
            self._companions = declared(table, column)
            listen_to(self._companions)

    def keys_of(self, column: Any) -> list[ColumnElement[Any]]:
        """Return the primary key of a column's table, alias or subquery. Raises InputError."""
        while isinstance(column, Label):
            column = column.element
        mine, place = self._column, getattr(column, "table", None)
        if mine is not None and place is not None:
            keys = [place.corresponding_column(key) for key in mine.table.primary_key.columns]
            if all(key is not None for key in keys):
                return keys
        raise InputError(
            "an encrypted vector can only be read from its table, an alias, or a subquery that also has"
            f" {self._needs(mine)}"
        )

    def _needs(self, mine: Column[Any] | None) -> str:
        return "the primary key"

    # -- values

    def sealed(self, checked: Matrix, identity: str | None, connection: Connection) -> Cell:
        """Encrypt the checked vector (1, dim) of a row. Raises InputError."""
        return Cell(self.sealed_many(checked, [identity], connection)[0].tobytes())

    def sealed_many(
        self, checked: Matrix, identities: Sequence[str | None], connection: Connection
    ) -> npt.NDArray[np.uint8]:
        """Encrypt n checked vectors: (n, size) cells. Raises InputError."""
        self.require_known(identities)
        return self.cipher.seal(checked, identities, incarnation_of(connection, self.companions))[1]

    def require_known(self, identities: Sequence[str | None]) -> None:
        """Raise InputError if a primary key must be known, and is not."""
        if self.require_identity and None in identities:
            raise InputError("the primary key must be known before the row is written (require_identity)")

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Keep this type for compared values, so that its bind processor refuses them."""
        return self

    def compare_values(self, x: Any, y: Any) -> bool:
        """Compare two vectors, or None."""
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return bool(np.array_equal(x, y))
        return x is y

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return ciphertext as it is. Raises InputError for a plaintext vector."""
        return sendable_cell(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the check alone: ciphertext is in its form already."""
        return lambda value: self.process_bind_param(value, dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select everything that opening the vector takes."""
        return type_coerce(self.packed(column), self)

    def packed(self, column: ColumnElement[Any]) -> ColumnElement[bytes]:
        """Select what `ColumnCipher.open` takes, as one bytea; NULL if the column is NULL."""
        keys = self.keys_of(column)
        blobs, cell = self.companions.blobs, type_coerce(column, LargeBinary())
        life = select(blobs.c.content).where(blobs.c.name == INCARNATION_NAME, blobs.c.part == 0).correlate(None)
        # zeros where there is none: no cell opens under that
        nothing = literal_column("decode(repeat('00', 16), 'hex')", LargeBinary())
        joined = named(identity_expression(self.companions.table, keys))
        joined = joined.op("||")(func.coalesce(life.scalar_subquery(), nothing)).op("||")(cell)
        return type_coerce(case((cell.is_not(None), joined)), LargeBinary())

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return a function that opens a selected value. It raises AuthenticationError."""
        cipher, bound = self.cipher, self.require_identity

        def process(value: Any) -> Matrix | None:
            if value is None:
                return None
            packed = bytes(value)
            vector: Matrix | None = opened.get().get((cipher, packed))
            if vector is None:
                vector = cipher.open([packed], bound=bound)[0]
                vector.setflags(write=False)  # SQLAlchemy would not notice a change in it
            return vector

        return process

    class Comparator(TypeDecorator.Comparator[Any]):
        """Refuses what would send a vector, or compare ciphertexts. IS NULL and column = column remain."""

        def cosine_distance(self, query: Any) -> ColumnElement[float]:
            """Raise InputError: the server cannot rank a sealed column."""
            self._refuse("cosine_distance")

        def l2_distance(self, query: Any) -> ColumnElement[float]:
            """Raise InputError: the server cannot rank a sealed column."""
            self._refuse("l2_distance")

        def max_inner_product(self, query: Any) -> ColumnElement[float]:
            """Raise InputError: the server cannot rank a sealed column."""
            self._refuse("max_inner_product")

        def _refuse(self, name: str) -> NoReturn:
            raise InputError(
                f"{self.expr} is sealed, so the server has no {name} for it: use nearest(session, select(...),"
                " Model.column, query, k), or declare the column with scheme='sap'"
            )

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse all other operators."""
            if op not in (operators.is_, operators.is_not) and not (
                op in (operators.eq, operators.ne) and (other[0] is None or isinstance(other[0], ClauseElement))
            ):
                raise InputError(
                    f"an encrypted vector has no operator {getattr(op, '__name__', op)}: rank with `nearest`"
                )
            return super().operate(op, *other, **kwargs)

        def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse the same operators with the column on the right."""
            return self.operate(op, other, **kwargs)

    comparator_factory = Comparator


def named(identity: ColumnElement[Any] | None) -> Any:
    """Return SQL for the length of an identity, 4 bytes, and the identity."""
    name: Any = literal_column("''::bytea", LargeBinary())
    if identity is not None:
        name = func.convert_to(identity, literal_column("'UTF8'"), type_=LargeBinary())
    length: ColumnElement[Any] = func.int4send(func.octet_length(name), type_=LargeBinary())
    return length.op("||")(name)


def _name_of(scheme: Any) -> Any:
    return scheme.get("name") if isinstance(scheme, Mapping) else scheme


def _attach(column: Column[Any], table: Any) -> None:
    """Give a column in a table its keys. A type object that another column already uses is copied."""
    kind = column.type
    if isinstance(kind, EncryptedVector) and isinstance(table, Table):
        if kind._column is not None:
            if kind._column is column:
                return
            kind = column.type = kind.fresh()
        kind._attached(column, table)
        if table in _made:
            kind._table_made(column, table)


def _whole(table: Table, _: Any) -> None:
    _made.add(table)
    for column in list(table.c):
        if isinstance(column.type, EncryptedVector):
            column.type._table_made(column, table)


event.listen(Table, "after_parent_attach", _whole)
