"""What SQLAlchemy carries instead of plaintext vectors, and distances between ciphertexts."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

import numpy as np
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Dialect, Float, LargeBinary, bindparam, cast, literal_column, null, type_coerce
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ColumnElement, Grouping
from sqlalchemy.types import TypeDecorator, UserDefinedType

from ...data.arrays import Matrix
from ...errors import InputError
from .errors import unwrapped

__all__ = [
    "HALF_FROM",
    "HALF_TO",
    "Cell",
    "Hidden",
    "IndexText",
    "IndexVector",
    "PlainVector",
    "Rank",
    "SealedVector",
    "Unsealed",
    "distance",
    "opened",
    "refuse_plaintext",
    "sendable",
    "sendable_cell",
    "text_of",
]

HALF_FROM, HALF_TO = 2000, 4000
"""pgvector indexes `vector` up to the first dimension, and `halfvec` up to the second."""


opened: ContextVar[Mapping[tuple[Any, bytes], Matrix]] = ContextVar("encvec_store_opened", default={})  # noqa: B039
"""Vectors that a search has opened already, by cipher and selected value: those of its hits are not opened twice."""


class Cell(bytes):
    """A sealed vector. Only this type may be sent to a sealed column."""

    __slots__ = ()


class IndexText(str):
    """An index vector as text for the server. Only this type may be sent."""

    __slots__ = ()


def text_of(index: Matrix) -> IndexText:
    """Return an index vector (index_dim,) as text that keeps every bit."""
    return IndexText("[" + ",".join(map(repr, index.tolist())) + "]")


class PlainVector(np.ndarray[Any, np.dtype[np.float32]]):
    """The plaintext vector of a mapped object. Just before an UPDATE its ciphertext stands in `sealed`."""

    sealed: IndexText | Cell | None = None

    @classmethod
    def of(cls, vector: Matrix) -> PlainVector:
        """Copy a vector (dim,). The copy is read-only: SQLAlchemy would not notice a change in it."""
        copy = np.array(vector, np.float32).view(cls)
        copy.setflags(write=False)
        return copy


class Hidden:
    """Carries a plaintext vector to its encryption, and shows nothing of it where SQLAlchemy prints parameters."""

    __slots__ = ("__vector",)

    def __init__(self, vector: Any = None) -> None:
        self.__vector = vector

    def __repr__(self) -> str:
        return "<plaintext vector, not shown>"

    def __reduce__(self) -> tuple[type[Hidden], tuple[()]]:
        return Hidden, ()

    @staticmethod
    def taken(value: Any) -> Any:
        """Return the vector that a value carries, or the value itself."""
        return value.__vector if isinstance(value, Hidden) else value


class Unsealed(Hidden):
    """A checked vector (1, dim) and the identity of its row, until the statement runs: then its table is known."""

    __slots__ = ("identity",)

    def __init__(self, vector: Any = None, identity: str | None = None) -> None:
        super().__init__(vector)
        self.identity = identity


class IndexVector(UserDefinedType[Any]):
    """The type of an encrypted query. It holds no keys."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        """Return the name of the type, without a dimension."""
        return "VECTOR"

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the check that lets only ciphertext pass."""
        return sendable


def sendable(value: Any) -> str | None:
    """Return ciphertext and NULL as they are. Raises InputError for anything else."""
    if value is not None and type(value) is not IndexText:
        refuse_plaintext()
    return value


def sendable_cell(value: Any) -> bytes | None:
    """Return a sealed vector and NULL as they are. Raises InputError for anything else."""
    if value is not None and type(value) is not Cell:
        refuse_plaintext()
    return None if value is None else bytes(value)


def refuse_plaintext() -> NoReturn:
    """Raise the InputError of a statement that would send a plaintext vector."""
    raise unwrapped(
        InputError(
            "this statement would send a plaintext vector. Set it on a mapped object, insert it, "
            "or give the columns that `ciphertexts(Model.column, vector, key)` returns"
        )
    )


class Rank(Float[float]):
    """The type of a distance between ciphertexts. Rows can be ordered by it; its value means nothing else."""

    class Comparator(Float.Comparator[float]):
        """Allows sorting only."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse every operator but those of ORDER BY."""
            if op not in (operators.asc_op, operators.desc_op, operators.nulls_first_op, operators.nulls_last_op):
                raise InputError("a distance of ciphertexts only sorts: `rerank` gives exact scores to compare")
            return super().operate(op, *other, **kwargs)

        reverse_operate = operate

    comparator_factory = Comparator


def distance(column: ColumnElement[Any], index: Matrix, *, exact: bool = False) -> ColumnElement[float]:
    """Rank a column by the inner product with an encrypted query: lifted points of every metric rank by that.

    Args:
        column: the encrypted column.
        index: (index_dim,), the encrypted query.
        exact: compare all rows: no index can serve this order.
    """
    asked: Any = bindparam(None, text_of(index), type_=IndexVector(), unique=True)
    if HALF_FROM < len(index) <= HALF_TO:  # as `hnsw_index` has it
        half = HALFVEC(len(index))
        column, asked = cast(type_coerce(column, VECTOR()), half), cast(asked, half)
    ranked = BinaryExpression(column, asked, operators.custom_op("<#>", precedence=8), type_=Rank())
    return type_coerce(type_coerce(Grouping(ranked), Float) + literal_column("0"), Rank) if exact else ranked


class SealedVector(TypeDecorator[bytes]):
    """The companion column: header and sealed exact vector. It is read with its vector; selected alone it is NULL."""

    impl = LargeBinary
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select NULL: the expression of the vector brings these bytes."""
        return type_coerce(null(), self)

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        """Return an envelope as it is. Raises InputError for anything else."""
        if value is not None and not isinstance(value, bytes):
            refuse_plaintext()
        return value
