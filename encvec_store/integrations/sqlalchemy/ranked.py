"""The pair: an encrypted vector that the server ranks by, and a companion column with the exact one.

One declared column becomes two in the table: `embedding vector(n)`, which the server ranks by, and `embedding_sealed
bytea`, which holds the header and the exact vector. The type adds the second column by itself. To read `embedding`, the
query selects primary key, `embedding_sealed` and `vector_send(embedding)` as one value; it is checked and opened here.
To insert, the companion has a column default: it sees the values of the row, encrypts the vector, and puts ciphertext
in its place. The bind processor refuses every vector that was encrypted neither there nor by the mapper.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    Column,
    LargeBinary,
    Table,
    case,
    func,
    literal_column,
    or_,
    type_coerce,
)
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.sql.elements import ColumnElement, Label

from ...data.arrays import Matrix
from ...errors import EncvecError, InputError, MetricError
from ...sealing.config import CollectionConfig
from ..cipher import plain_array
from .errors import unwrapped
from .identity import check_key, identity_expression, identity_of
from .types import OPERATORS, EncryptedVector, named
from .values import Hidden, IndexText, SealedVector, distance, sendable, text_of

__all__ = ["SUFFIX", "RankedVector"]

SUFFIX = "_sealed"
_log = logging.getLogger("encvec_store")
_warned: set[str] = set()


class RankedVector(EncryptedVector):
    """What `EncryptedVector(..., scheme="sap")` makes."""

    impl = VECTOR  # type: ignore[assignment]
    cache_ok = True
    paired: ClassVar[bool] = True
    _companion = True

    def _impl_arguments(self, config: CollectionConfig) -> tuple[Any, ...]:
        return (config.index_dim,)

    # -- the table

    def copy(self, **kw: Any) -> RankedVector:
        """Copy for another column. If this column has a companion, the copy adds none: SQLAlchemy copies that too."""
        made: RankedVector = super().copy(**kw)
        made._companion = self._companion and self._column is None
        return made

    def fresh(self) -> EncryptedVector:
        """Copy for another column, with keys of its own."""
        made: RankedVector = super().fresh()  # type: ignore[assignment]
        made._companion = self._companion
        return made

    def _attached(self, column: Column[Any], table: Table) -> None:
        super()._attached(column, table)
        place = self.cipher.place
        if place not in _warned:
            _warned.add(place)
            _log.warning(
                "%s has the scheme %s: who has the table and similar data can tell what its vectors are. The default,"
                " `sealed`, shows nothing of them: see docs/threat-model.md",
                place,
                self.scheme.name,
            )
        name = column.name + SUFFIX
        if self._companion and name not in table.c:
            sealed: Column[Any] = Column(
                name, SealedVector(), key=column.key + SUFFIX, default=_sealed_default, nullable=column.nullable
            )
            table.append_column(sealed)

    def _table_made(self, column: Column[Any], table: Table) -> None:
        check_key(table, complete=False)

    @property
    def index_dim(self) -> int:
        """Coordinates of an index vector: the dimension in the database."""
        return self._config.index_dim

    def sibling(self, column: Any) -> tuple[ColumnElement[Any], ColumnElement[Any] | None]:
        """Return the companion and the identity of a column in a table, alias or subquery. Raises InputError."""
        keys = self.keys_of(column)
        while isinstance(column, Label):
            column = column.element
        mine: Any = self._column
        sealed = column.table.corresponding_column(mine.table.c[mine.key + SUFFIX])
        if sealed is None:
            raise InputError(
                "an encrypted vector can only be read from its table, an alias, or a subquery that also has"
                f" {self._needs(mine)}"
            )
        return sealed, identity_expression(mine.table, keys)

    def _needs(self, mine: Column[Any] | None) -> str:
        return f"its {SUFFIX!r} column and the primary key"

    # -- values

    def pair(self, checked: Matrix, identity: str | None) -> tuple[IndexText, bytes]:
        """Encrypt the checked vector (1, dim) of a row: the values of its two columns. Raises InputError."""
        index, envelopes = self.pairs(checked, [identity])
        return text_of(index[0]), envelopes.tobytes()

    def pairs(self, checked: Matrix, identities: Sequence[str | None]) -> tuple[Matrix, npt.NDArray[np.uint8]]:
        """Encrypt n checked vectors: (n, index_dim) index vectors and (n, size) envelopes. Raises InputError."""
        self.require_known(identities)
        return self.cipher.seal(checked, identities)

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Return ciphertext as it is. Raises InputError for a plaintext vector."""
        return sendable(value)

    def packed(self, column: ColumnElement[Any]) -> ColumnElement[bytes]:
        """Select what `ColumnCipher.open` takes, as one bytea; NULL if both columns are NULL."""
        sealed, identity = self.sibling(column)
        vector, envelope = type_coerce(column, VECTOR()), type_coerce(sealed, LargeBinary())
        # Half a pair is not NULL: it was tampered with. It is sent without the missing part, and refused when opened.
        nothing = literal_column("''::bytea", LargeBinary())
        packed = named(identity)
        for part in (
            func.coalesce(envelope, nothing),
            func.coalesce(func.vector_send(vector, type_=LargeBinary()), nothing),
        ):
            packed = packed.op("||")(part)
        return type_coerce(case((or_(envelope.is_not(None), vector.is_not(None)), packed)), LargeBinary())

    class Comparator(EncryptedVector.Comparator):
        """Distances to a query, which is encrypted at once. Smaller is nearer; the value means nothing else."""

        def _distance(self, name: str, query: Any) -> ColumnElement[float]:
            kind: RankedVector = self.expr.type  # type: ignore[assignment]
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

    comparator_factory = Comparator


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
    kind: RankedVector = table.c[column.key.removesuffix(SUFFIX)].type
    try:
        identity = identity_of(table, lambda key: parameters.get(key.key + suffix))
        checked = kind.cipher.checked(plain_array(vector, name)[None], name)
        parameters[name], sealed = kind.pair(checked, identity)
    except EncvecError as error:
        failed: EncvecError = error
    else:
        return sealed
    raise unwrapped(failed)
