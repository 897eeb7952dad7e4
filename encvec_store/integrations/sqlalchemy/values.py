"""What goes over the wire in the place of vectors, and what orders by it."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from sqlalchemy import Dialect, Float, LargeBinary, bindparam, null, type_coerce
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ColumnElement
from sqlalchemy.types import TypeDecorator, UserDefinedType

from ...data.arrays import Matrix
from ...errors import InputError
from .errors import unwrapped

__all__ = ["IndexText", "IndexVector", "PlainVector", "Rank", "SealedVector", "distance", "sendable", "text_of"]


class IndexText(str):
    """An index vector as the server reads it: what may be sent."""

    __slots__ = ()


def text_of(index: Matrix) -> IndexText:
    """Write an (index_dim,) index vector so that the server reads every bit of it."""
    return IndexText("[" + ",".join(map(repr, index.tolist())) + "]")


class PlainVector(np.ndarray[Any, np.dtype[np.float32]]):
    """A plaintext vector of a mapped object; before an UPDATE the mapper leaves its ciphertext with it."""

    text: IndexText | None = None

    @classmethod
    def of(cls, vector: Matrix) -> PlainVector:
        """Copy a (dim,) vector; the copy is read-only, as a change of it would go unnoticed."""
        copy = np.array(vector, np.float32).view(cls)
        copy.setflags(write=False)
        return copy


class IndexVector(UserDefinedType[Any]):
    """What distances are measured to: an encrypted query. Holds no keys."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        """Name the type, of any dimension."""
        return "VECTOR"

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the guard."""
        return sendable


def sendable(value: Any) -> str | None:
    """Let ciphertext and NULL pass; a plaintext vector never does. Raises InputError."""
    if value is not None and type(value) is not IndexText:
        _refuse_plaintext()
    return value


def _refuse_plaintext() -> NoReturn:
    raise unwrapped(
        InputError(
            "this statement would send a plaintext vector: set it on a mapped object, INSERT it, "
            "or give the columns that `ciphertexts(Model.column, vector, key)` returns"
        )
    )


class Rank(Float[float]):
    """What a distance of ciphertexts is: good to order by, and nothing else."""

    class Comparator(Float.Comparator[float]):
        """Lets a distance be sorted."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse all but the directions of a sort."""
            if op not in (operators.asc_op, operators.desc_op, operators.nulls_first_op, operators.nulls_last_op):
                raise InputError("distances of ciphertexts only rank; `rerank` gives exact ones to compute with")
            return super().operate(op, *other, **kwargs)

        reverse_operate = operate

    comparator_factory = Comparator


def distance(column: ColumnElement[Any], index: Matrix) -> ColumnElement[float]:
    """Rank a column by the inner product with an encrypted query: how every lifted metric ranks."""
    asked = bindparam(None, text_of(index), type_=IndexVector(), unique=True)
    return BinaryExpression(column, asked, operators.custom_op("<#>", precedence=8), type_=Rank())


class SealedVector(TypeDecorator[bytes]):
    """The companion: header and sealed exact vector. Read with its vector; selected alone it is NULL."""

    impl = LargeBinary
    cache_ok = True

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Fetch nothing: the vector's own expression brings these bytes."""
        return type_coerce(null(), self)

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        """Let envelopes pass."""
        if value is not None and not isinstance(value, bytes):
            _refuse_plaintext()
        return value
