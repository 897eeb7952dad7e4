"""The column type `EncryptedVector` and its companion.

One declared column is two in the table: `embedding vector(n)`, what the server ranks by, and `embedding_sealed
bytea`, the header and the exact vector. The first brings the second along. Reading `embedding` selects
`embedding_sealed || vector_send(embedding) || primary key` in one value, which is checked and opened here. An INSERT
leaves the companion to its column default, which sees the row's values and puts ciphertext in the place of the
vector. A vector that passed neither that nor the mapper's events is refused by the bind processor: never sent.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Dialect, LargeBinary, Table, case, event, func, literal_column, or_, type_coerce
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ClauseElement, ColumnElement, Label
from sqlalchemy.types import TypeDecorator, TypeEngine

from ...data.arrays import Matrix
from ...errors import InputError, MetricError, NormError, SchemeError
from ...sealing.config import CollectionConfig
from .cipher import ColumnCipher, KeysetSource
from .errors import unwrapped
from .identity import identity_expression, identity_of
from .values import IndexText, PlainVector, SealedVector, distance, sendable, text_of

__all__ = ["SUFFIX", "EncryptedVector"]

SUFFIX = "_sealed"
OPERATORS = {"cosine": "cosine_distance", "l2": "l2_distance", "ip": "max_inner_product"}
_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_count = itertools.count(1)


class EncryptedVector(TypeDecorator[Matrix]):
    """A vector that the database sees encrypted only; put it where pgvector's `Vector(dim)` stood.

        embedding: Mapped[npt.NDArray[np.float32]] = mapped_column(EncryptedVector(384, keyset=keyset))

    Vectors go in as anything numpy makes (dim,) floats of, and come out as float32 arrays, exact. A second column
    `embedding_sealed` comes along. Wrong keys, altered, swapped or moved data raise AuthenticationError on load.

    Args:
        dim: coordinates of a vector.
        keyset: a `Keyset`, or a function that returns it at first use.
        tenant: keys are the tenant's own.
        collection: keys are the column's own too; "table.column" unless given (give the old name after renaming).
        metric: cosine, l2 or ip; says which of `cosine_distance`, `l2_distance`, `max_inner_product` the column has.
        scheme: of the index vectors, such as {"name": "sap", "beta": 2.0}.
        max_norm: for l2 and ip: no vector is longer.
        require_identity: refuse to write or read a row whose primary key is not bound into its ciphertext.
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
            raise SchemeError(f"scheme {config.scheme.name!r} has no index vectors for a column to hold")
        if config.cells > 1:
            raise SchemeError("a column has one rotation: cells are for collections, which ask them all in a search")
        if config.metric.bounded and config.max_norm is None:
            raise NormError(f"metric {metric!r} needs a max_norm: the largest length of a vector")
        super().__init__(config.index_dim)
        self._config = config
        self._source = keyset
        self._given = collection
        self._companion = True
        self._column: Column[Any] | None = None
        self._cipher = None if collection is None else ColumnCipher(keyset, tenant, collection, config)
        # These stand in SQLAlchemy's cache keys: a number for the keyset, never a key. Numbers are not used again.
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
        """What comes out."""
        return np.ndarray

    @property
    def cipher(self) -> ColumnCipher:
        """The column's cipher. Raises InputError for a type that stands in no table."""
        if self._cipher is None:
            raise InputError("this EncryptedVector is in no table yet, so it has no keys; or give it a collection")
        return self._cipher

    # -- the table

    def copy(self, **kw: Any) -> EncryptedVector:
        """Copy for another column; of a column that has its companion already, which is then copied by itself."""
        made: EncryptedVector = super().copy(**kw)
        made._companion = self._companion and self._column is None
        return made

    def fresh(self) -> EncryptedVector:
        """Copy for a column of another table, or another of the same: with keys of its own."""
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
        """Coordinates of an index vector: what the database calls the dimension."""
        return self._config.index_dim

    def sibling(self, column: Any) -> tuple[ColumnElement[Any], ColumnElement[Any] | None]:
        """Return the companion and the identity that stand beside a column, in a table, alias or subquery."""
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
            "an encrypted vector is read from its table, an alias, or a subquery that also has its "
            f"{SUFFIX!r} column and the primary key"
        )

    # -- values

    def sealed(self, checked: Matrix, identity: str | None) -> tuple[IndexText, bytes]:
        """Encrypt one (1, dim) checked vector of a row: what its two columns hold. Raises InputError."""
        index, envelopes = self.sealed_many(checked, [identity])
        return text_of(index[0]), envelopes.tobytes()

    def sealed_many(self, checked: Matrix, identities: Sequence[str | None]) -> tuple[Matrix, npt.NDArray[np.uint8]]:
        """Encrypt n checked vectors: (n, index_dim) index vectors and (n, size) envelopes. Raises InputError."""
        if self.require_identity and None in identities:
            raise InputError("a row's primary key must be known before it is written (require_identity)")
        return self.cipher.seal(checked, identities)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Give values no other type: they are refused."""
        return self

    def compare_values(self, x: Any, y: Any) -> bool:
        """Compare two vectors, or None."""
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            return bool(np.array_equal(x, y))
        return x is y

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Let ciphertext pass; a plaintext vector never does."""
        return sendable(value.text if isinstance(value, PlainVector) and value.text is not None else value)

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the guard alone: what it lets pass is text already."""
        return lambda value: self.process_bind_param(value, dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select what `packed` says, to be opened."""
        return type_coerce(self.packed(column), self)

    def packed(self, column: ColumnElement[Any]) -> ColumnElement[bytes]:
        """Everything that a row's vector is checked with, as one bytea; NULL where there is none."""
        sealed, identity = self.sibling(column)
        vector, envelope = type_coerce(column, VECTOR()), type_coerce(sealed, LargeBinary())
        # half a pair is no NULL but a forgery: one part is missing in what then has to be opened
        nothing = literal_column("''::bytea", LargeBinary())
        sent = func.vector_send(vector, type_=LargeBinary())
        packed: ColumnElement[Any] = func.coalesce(envelope, nothing).op("||")(func.coalesce(sent, nothing))
        if identity is not None:
            packed = packed.op("||")(func.convert_to(identity, literal_column("'UTF8'"), type_=LargeBinary()))
        return type_coerce(case((or_(envelope.is_not(None), vector.is_not(None)), packed)), LargeBinary())

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return what opens such a value. Raises AuthenticationError."""
        cipher, bound = self.cipher, self.require_identity

        def process(value: Any) -> Matrix | None:
            return None if value is None else cipher.open([bytes(value)], bound=bound)[0]

        return process

    class Comparator(TypeDecorator.Comparator[Any]):
        """Distances to a query, which is encrypted here and now. Smaller is nearer; the numbers mean nothing more."""

        def _distance(self, name: str, query: Any) -> ColumnElement[float]:
            kind: EncryptedVector = self.expr.type  # type: ignore[assignment]
            if OPERATORS[kind.metric] != name:
                raise MetricError(f"this column ranks by {kind.metric}: use {OPERATORS[kind.metric]}, not {name}")
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
            """Refuse all but a test for NULL (and column with column): a vector would go out, or never be equal."""
            if op not in (operators.is_, operators.is_not) and not (
                op in (operators.eq, operators.ne) and (other[0] is None or isinstance(other[0], ClauseElement))
            ):
                raise InputError(f"an encrypted vector has no {getattr(op, '__name__', op)}: rank by its distances")
            return super().operate(op, *other, **kwargs)

        def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse."""
            return self.operate(op, other, **kwargs)

    comparator_factory = Comparator


def _attach(column: Column[Any], table: Any) -> None:
    """Give a column in a table its companion; a type object that stands in another column already is copied."""
    kind = column.type
    if isinstance(kind, EncryptedVector) and isinstance(table, Table):
        if kind._column is not None:
            if kind._column is column:
                return
            kind = column.type = kind.fresh()
        kind._attached(column, table)


def _sealed_default(context: DefaultExecutionContext) -> bytes | None:
    """Encrypt the vector of the row that is being inserted: the index vector takes its place in the parameters."""
    column: Any = context.current_column
    suffix, parameters = "", context.get_current_parameters(isolate_multiinsert_groups=False)  # type: ignore[no-untyped-call]
    state: Any = context.compiled.compile_state  # type: ignore[union-attr]
    if state._has_multi_parameters:  # INSERT ... VALUES (...), (...)
        many = column._is_multiparam_column
        suffix, column = (f"_m{column.index + 1}", column.original) if many else ("_m0", column)
    table: Table = column.table
    name = column.key.removesuffix(SUFFIX) + suffix
    vector = parameters.get(name)
    if vector is None:
        return None
    kind: EncryptedVector = table.c[column.key.removesuffix(SUFFIX)].type
    try:
        identity = identity_of(table, lambda key: parameters.get(key.key + suffix))
        checked = kind.cipher.checked(np.asarray(vector)[None], name)
        parameters[name], sealed = kind.sealed(checked, identity)
    except InputError as error:
        raise unwrapped(error) from None
    return sealed
