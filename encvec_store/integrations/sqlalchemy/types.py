"""The column type `EncryptedVector` and its companion column.

One declared column becomes two in the table: `embedding vector(n)`, which the server ranks by, and `embedding_sealed
bytea`, which holds the header and the exact vector. The type adds the second column by itself. To read `embedding`, the
query selects primary key, `embedding_sealed` and `vector_send(embedding)` as one value; it is checked and opened here.
To insert, the companion has a column default: it sees the values of the row, encrypts the vector, and puts ciphertext
in its place. The bind processor refuses every vector that was encrypted neither there nor by the mapper.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    Column,
    Dialect,
    LargeBinary,
    MetaData,
    Table,
    case,
    event,
    func,
    literal_column,
    or_,
    type_coerce,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ClauseElement, ColumnElement, Label
from sqlalchemy.types import TypeDecorator, TypeEngine

from ...data.arrays import Matrix
from ...errors import EncvecError, InputError, MetricError, NormError, SchemeError
from ...sealing.config import CollectionConfig
from .cipher import ColumnCipher, KeysetSource, plain_array
from .errors import unwrapped
from .identity import check_key, identity_expression, identity_of
from .values import Hidden, IndexText, SealedVector, distance, sendable, text_of

__all__ = ["SUFFIX", "EncryptedVector"]

SUFFIX = "_sealed"
OPERATORS = {"cosine": "cosine_distance", "l2": "l2_distance", "ip": "max_inner_product"}
_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_count = itertools.count(1)


class EncryptedVector(TypeDecorator[Matrix]):
    """A vector that the database sees encrypted only. Use it in place of pgvector's `Vector(dim)`.

        embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(384, keyset=keyset))

    Values are (dim,) lists or arrays of numbers. They come back exactly, as read-only float32 arrays. The type adds a
    second column, `embedding_sealed`. The primary key may have Integer, String, Text and Uuid columns. Loading raises
    AuthenticationError, with the row's key, if the keys are wrong or the data was altered, swapped or moved.

    Args:
        dim: coordinates of a vector.
        keyset: a `Keyset`, or a function that returns it at first use.
        tenant: each tenant has keys of its own.
        collection: each column has keys of its own, under this name. The default is "table.column"; after you rename
            a table or column, give the old name.
        metric: cosine, l2 or ip. The column then has `cosine_distance`, `l2_distance` or `max_inner_product`.
        scheme: of the index vectors, such as {"name": "sap", "beta": 2.0}.
        max_norm: the largest length of a vector; needed for l2 and ip.
        require_identity: refuse to write or read a row that is not bound to its primary key.
    """

    impl = VECTOR
    cache_ok = True

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
            scheme_spec={"name": "sap", "beta": 2.0} if scheme is None else scheme,
            fields=None,
            max_norm=max_norm,
            oversample=None,
        )
        if not config.index_dim:
            raise SchemeError(f"the scheme of a column must have index vectors, and {config.scheme.name!r} has none")
        if config.cells > 1:
            raise SchemeError(
                f"cells must be 1 for a column, got {config.cells}: only collections search several cells"
            )
        if config.metric.bounded and config.max_norm is None:
            raise NormError(f"metric {metric!r} needs max_norm, the largest length of a vector")
        super().__init__(config.index_dim)
        self._config = config
        self._source = keyset
        self._given = collection
        self._companion = True
        self._column: Column[Any] | None = None
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

    def __repr__(self) -> str:
        return f"EncryptedVector({self.dim}, metric={self.metric!r}, collection={self.collection!r})"

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

    # -- the table

    def copy(self, **kw: Any) -> EncryptedVector:
        """Copy for another column. If this column has a companion, the copy adds none: SQLAlchemy copies that too."""
        made: EncryptedVector = super().copy(**kw)
        made._companion = self._companion and self._column is None
        return made

    def fresh(self) -> EncryptedVector:
        """Copy for another column, with keys of its own."""
        made = self.copy()
        made._companion = self._companion
        made._column = None
        if made._given is None:
            made._cipher = made.collection = None
        return made

    def _set_parent(self, parent: Any, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        event.listen(parent, "after_parent_attach", _attach)

    def _attached(self, column: Column[Any], table: Table) -> None:
        self._column = column
        event.listen(table, "after_parent_attach", _check_key)
        if self._cipher is None:
            self.collection = f"{table.fullname}.{column.name}"
            self._cipher = ColumnCipher(self._source, self.tenant, self.collection, self._config)
        name = column.name + SUFFIX
        if self._companion and name not in table.c:
            sealed: Column[Any] = Column(
                name, SealedVector(), key=column.key + SUFFIX, default=_sealed_default, nullable=column.nullable
            )
            table.append_column(sealed)

    @property
    def index_dim(self) -> int:
        """Coordinates of an index vector: the dimension in the database."""
        return self._config.index_dim

    def sibling(self, column: Any) -> tuple[ColumnElement[Any], ColumnElement[Any] | None]:
        """Return the companion and the identity of a column in a table, alias or subquery. Raises InputError."""
        while isinstance(column, Label):
            column = column.element
        mine, place = self._column, getattr(column, "table", None)
        if mine is not None and place is not None:
            table: Table = mine.table
            sealed = place.corresponding_column(table.c[mine.key + SUFFIX])
            keys = [place.corresponding_column(key) for key in table.primary_key.columns]
            if sealed is not None and all(key is not None for key in keys):
                return sealed, identity_expression(table, keys)
        raise InputError(
            "an encrypted vector can only be read from its table, an alias, or a subquery that also has its "
            f"{SUFFIX!r} column and the primary key"
        )

    # -- values

    def sealed(self, checked: Matrix, identity: str | None) -> tuple[IndexText, bytes]:
        """Encrypt the checked vector (1, dim) of a row: the values of its two columns. Raises InputError."""
        index, envelopes = self.sealed_many(checked, [identity])
        return text_of(index[0]), envelopes.tobytes()

    def sealed_many(self, checked: Matrix, identities: Sequence[str | None]) -> tuple[Matrix, npt.NDArray[np.uint8]]:
        """Encrypt n checked vectors: (n, index_dim) index vectors and (n, size) envelopes. Raises InputError."""
        if self.require_identity and None in identities:
            raise InputError("the primary key must be known before the row is written (require_identity)")
        return self.cipher.seal(checked, identities)

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
        return sendable(value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the check alone: ciphertext is text already."""
        return lambda value: self.process_bind_param(value, dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select everything that opening the vector takes."""
        return type_coerce(self.packed(column), self)

    def packed(self, column: ColumnElement[Any]) -> ColumnElement[bytes]:
        """Select what `ColumnCipher.open` takes, as one bytea; NULL if both columns are NULL."""
        sealed, identity = self.sibling(column)
        vector, envelope = type_coerce(column, VECTOR()), type_coerce(sealed, LargeBinary())
        # Half a pair is not NULL: it was tampered with. It is sent without the missing part, and refused when opened.
        nothing = literal_column("''::bytea", LargeBinary())
        name: Any = nothing
        if identity is not None:
            name = func.convert_to(identity, literal_column("'UTF8'"), type_=LargeBinary())
        packed: ColumnElement[Any] = func.int4send(func.octet_length(name), type_=LargeBinary())
        for part in (
            name,
            func.coalesce(envelope, nothing),
            func.coalesce(func.vector_send(vector, type_=LargeBinary()), nothing),
        ):
            packed = packed.op("||")(part)
        return type_coerce(case((or_(envelope.is_not(None), vector.is_not(None)), packed)), LargeBinary())

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return a function that opens a selected value. It raises AuthenticationError."""
        cipher, bound = self.cipher, self.require_identity

        def process(value: Any) -> Matrix | None:
            if value is None:
                return None
            vector: Matrix = cipher.open([bytes(value)], bound=bound)[0]
            vector.setflags(write=False)  # SQLAlchemy would not notice a change in it
            return vector

        return process

    class Comparator(TypeDecorator.Comparator[Any]):
        """Distances to a query, which is encrypted at once. Smaller is nearer; the value means nothing else."""

        def _distance(self, name: str, query: Any) -> ColumnElement[float]:
            kind: EncryptedVector = self.expr.type  # type: ignore[assignment]
            if OPERATORS[kind.metric] != name:
                raise MetricError(f"a column of metric {kind.metric} has {OPERATORS[kind.metric]}, not {name}")
            return distance(self.expr, kind.cipher.query(query))

        def cosine_distance(self, query: Any) -> ColumnElement[float]:
            """Rank by cosine distance to a (dim,) query, in a column of metric cosine."""
            return self._distance("cosine_distance", query)

        def l2_distance(self, query: Any) -> ColumnElement[float]:
            """Rank by Euclidean distance to a (dim,) query, in a column of metric l2."""
            return self._distance("l2_distance", query)

        def max_inner_product(self, query: Any) -> ColumnElement[float]:
            """Rank by the negative inner product with a (dim,) query, in a column of metric ip."""
            return self._distance("max_inner_product", query)

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse operators that would send a vector, or compare ciphertexts. IS NULL and column = column remain."""
            if op not in (operators.is_, operators.is_not) and not (
                op in (operators.eq, operators.ne) and (other[0] is None or isinstance(other[0], ClauseElement))
            ):
                raise InputError(
                    f"an encrypted vector has no operator {getattr(op, '__name__', op)}: rank by its distances"
                )
            return super().operate(op, *other, **kwargs)

        def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse the same operators with the column on the right."""
            return self.operate(op, other, **kwargs)

    comparator_factory = Comparator


def _attach(column: Column[Any], table: Any) -> None:
    """Give a column in a table its companion. A type object that another column already uses is copied."""
    kind = column.type
    if isinstance(kind, EncryptedVector) and isinstance(table, Table):
        if kind._column is not None:
            if kind._column is column:
                return
            kind = column.type = kind.fresh()
        kind._attached(column, table)


def _check_key(table: Table, metadata: MetaData) -> None:
    check_key(table, complete=False)


def _sealed_default(context: DefaultExecutionContext) -> bytes | None:
    """Return the envelope of the row that is inserted, and put its index vector in the place of the vector."""
    column: Any = context.current_column
    suffix, parameters = "", context.get_current_parameters(isolate_multiinsert_groups=False)  # type: ignore[no-untyped-call]
    state: Any = context.compiled.compile_state  # type: ignore[union-attr]
    if getattr(state, "_has_multi_parameters", False):  # INSERT ... VALUES (...), (...)
        many = column._is_multiparam_column
        suffix, column = (f"_m{column.index + 1}", column.original) if many else ("_m0", column)
    table: Table = column.table
    name = column.key.removesuffix(SUFFIX) + suffix
    vector = Hidden.taken(parameters.get(name))
    if vector is None:
        return None
    kind: EncryptedVector = table.c[column.key.removesuffix(SUFFIX)].type
    try:
        identity = identity_of(table, lambda key: parameters.get(key.key + suffix))
        checked = kind.cipher.checked(plain_array(vector, name)[None], name)
        parameters[name], sealed = kind.sealed(checked, identity)
    except EncvecError as error:
        failed: EncvecError = error
    else:
        return sealed
    raise unwrapped(failed)
