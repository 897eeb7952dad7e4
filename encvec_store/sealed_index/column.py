"""One field of the metadata of many records, in arrays: a filter compares all of them at once.

Each row has a code. Numbers and times that a float64 holds exactly are kept in a second array, so that a million
distinct ones take nine bytes each. Any other value is kept once, and its code says which one it is.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.conditions import WITHIN, Condition
from ..data.fields import MISSING, canonical, kind, order_key

__all__ = ["FIRST", "FieldColumn", "Values"]

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.unsignedinteger[Any]]
Words = npt.NDArray[np.float64]
_LEAST = 1_024
_VALUE = 300
"""Bytes that a distinct value takes in the three places that know it."""
_ABSENT = 0
"""The code of a missing value."""
_KINDS = {"number": 1, "instant": 2, "datetime": 3, "date": 4}
"""The codes of values that are in the second array. Times are their order keys there."""
FIRST = 5
"""The code of the first value that is kept once."""
_EXACT = 2**53
"""Integers up to here are float64s."""


@dataclass(frozen=True)
class Values:
    """The values of n rows, apart from any column."""

    codes: Codes
    """(n,)."""
    words: Words | None
    """(n,) of rows with a code below `FIRST`; None if there are no such numbers or times."""
    distinct: list[Any]
    """The values with the codes from `FIRST` on, all different."""

    def agree(self, places: npt.NDArray[np.intp], wanted: Sequence[Any]) -> Mask:
        """Say for each of some places whether its value is the one wanted; MISSING for none."""
        words = np.zeros(len(self.codes)) if self.words is None else self.words
        known = [canonical(value) for value in self.distinct]
        found = np.zeros(len(places), np.bool_)
        for at, (code, word, value) in enumerate(
            zip(self.codes[places].tolist(), words[places].tolist(), wanted, strict=True)
        ):
            placed = (_ABSENT, 0.0) if value is MISSING else _word_of(value)
            if placed is None:
                found[at] = code >= FIRST and known[code - FIRST] == canonical(value)
            else:
                same = code == _ABSENT or word == placed[1] or (math.isnan(word) and math.isnan(placed[1]))
                found[at] = code == placed[0] and same
        return found


class FieldColumn:
    """One field. Not thread-safe: `FieldColumns` guards it."""

    def __init__(self) -> None:
        self._known: dict[Any, int] = {}
        self._texts: dict[Any, int] = {MISSING: _ABSENT}
        self._codes_of: dict[bytes, int] = {}
        self._values: list[Any] = [MISSING] * FIRST
        self._listed = FIRST
        """How many values `_known`, `_texts` and `_codes_of` know."""
        self._codes: Codes = np.zeros(_LEAST, np.uint8)
        self._words: Words | None = None
        self._keys: dict[str, tuple[npt.NDArray[np.int64], Words | list[Any]]] = {}
        """By kind: codes of its values in the order of their keys, and the keys; made when needed."""
        self._sorted = FIRST
        """How many values `_keys` knows."""

    @property
    def bytes(self) -> int:
        """About the memory held."""
        words = 0 if self._words is None else self._words.nbytes
        return self._codes.nbytes + words + _VALUE * (len(self._values) - FIRST)

    def reorder(self, order: npt.NDArray[np.intp]) -> None:
        """Put the rows in another order."""
        self._codes = self._codes[: len(order)]  # a column that began late may have fewer: zeros are missing values
        self._codes = np.pad(self._codes, (0, len(order) - len(self._codes)))[order]
        if self._words is not None:
            self._words = np.pad(self._words[: len(order)], (0, max(0, len(order) - len(self._words))))[order]

    def write(self, start: int, values: Sequence[Any]) -> None:
        """Take the values of more rows, which begin at a place; MISSING for those that have none."""
        types = set(map(type, values))
        if types <= {str, type(MISSING)}:
            self._list()
            texts = list(map(self._texts.get, values))
            if None in texts:
                texts = [self._code(value) if code is None else code for code, value in zip(texts, values, strict=True)]
            self._put(start, np.array(texts, np.int64), None)
            return
        numbers = _numbers(values, types)
        if numbers is not None:
            self._put(start, *numbers)
            return
        found = [self._placed(value) for value in values]
        codes = np.fromiter((code for code, _ in found), np.int64, len(found))
        any_words = ((codes > _ABSENT) & (codes < FIRST)).any()
        self._put(start, codes, np.fromiter((word for _, word in found), np.float64, len(found)) if any_words else None)

    def adopt(self, start: int, values: Values, places: npt.NDArray[np.intp]) -> None:
        """Take values at some places of `values`, as rows that begin at a place."""
        codes: npt.NDArray[Any] = values.codes[places]
        if values.distinct:
            new = np.arange(FIRST + len(values.distinct), dtype=np.int64)
            if len(self._values) == FIRST:
                self._values += values.distinct
            else:
                new[FIRST:] = [self._code(value) for value in values.distinct]
            codes = new[codes]
        self._put(start, codes, None if values.words is None else values.words[places])

    def taken(self, places: npt.NDArray[np.intp]) -> Values:
        """Return the values at some places, and none that is at no place."""
        codes = self._codes[np.minimum(places, len(self._codes) - 1)].astype(np.int64)
        codes[places >= len(self._codes)] = _ABSENT
        used = np.unique(codes[codes >= FIRST])
        new = np.arange(len(self._values))
        new[used] = np.arange(FIRST, FIRST + len(used))
        words = None
        if self._words is not None:
            words = self._words[np.minimum(places, len(self._words) - 1)]
            words[(codes == _ABSENT) | (codes >= FIRST)] = 0
        least = np.min_scalar_type(FIRST + len(used))
        return Values(new[codes].astype(least), words, [self._values[code] for code in used.tolist()])

    def mask(self, condition: Condition, count: int) -> Mask:
        """Return (count,) which of the rows satisfy a condition on the field."""
        codes = self._codes[:count]
        passing, opposite = np.zeros(len(self._values), np.bool_), False
        numbers: list[tuple[int, Any]] = []  # code and word
        match condition.operator:
            case "exists":
                passing[_ABSENT], opposite = True, bool(condition.values)
            case "in" | "nin":
                self._list()
                for encoded, value in condition.values.items():
                    if (placed := _word_of(value)) is not None:
                        numbers.append(placed)
                    elif (code := self._codes_of.get(encoded)) is not None:
                        passing[code] = True
                opposite = condition.operator == "nin"
            case operator if operator in WITHIN:  # what has no code of its own is a number or a time
                passing[FIRST:] = [condition.fits(value) for value in self._values[FIRST:]]
            case _:
                passing[self._in_order(condition)] = True
        found: Mask = passing[codes] if passing.any() else np.zeros(len(codes), np.bool_)
        if len(found) < count:  # rows after the last that has the field
            found = np.append(found, np.full(count - len(found), passing[_ABSENT]))
        if self._words is not None:
            stop = min(len(codes), len(self._words))
            if condition.operator in ("lt", "lte", "gt", "gte"):
                (operand,) = condition.values.values()
                code = _KINDS.get(kind(operand))
                if code is not None:
                    found[:stop] |= _compared(condition.operator, self._words[:stop], order_key(operand)) & (
                        codes[:stop] == code
                    )
            for code in {code for code, _ in numbers}:
                some = np.array([word for each, word in numbers if each == code])
                found[:stop] |= _among(self._words[:stop], some) & (codes[:stop] == code)
        return ~found if opposite else found

    def _put(self, start: int, codes: npt.NDArray[Any], words: Words | None) -> None:
        stop = start + len(codes)
        dtype = np.promote_types(self._codes.dtype, np.min_scalar_type(len(self._values)))
        if stop > len(self._codes) or dtype != self._codes.dtype:
            # masks that are being made see the old array
            self._codes = _grown(self._codes, stop, dtype)
        self._codes[start:stop] = codes
        if words is not None:
            if self._words is None or stop > len(self._words):
                self._words = _grown(np.zeros(0) if self._words is None else self._words, stop, np.dtype(np.float64))
            self._words[start:stop] = words

    def _placed(self, value: Any) -> tuple[int, float]:
        """Return the code of a value, and its word."""
        if value is MISSING:
            return _ABSENT, 0.0
        placed = _word_of(value)
        return (self._code(value), 0.0) if placed is None else placed

    def _code(self, value: Any) -> int:
        """Return the code of a value that is kept once."""
        self._list()
        if type(value) is str and (code := self._texts.get(value)) is not None:
            return code
        try:
            # 1 and True are equal to Python, and not to a filter
            quick = type(value), value
            code = self._known.get(quick)
        except TypeError:  # a list or a dict
            quick, code = None, None
        if code is None:
            code = self._codes_of.setdefault(canonical(value), len(self._values))
            if code == len(self._values):
                self._values.append(value)
                self._listed += 1
            if type(value) is str:
                self._texts[value] = code
            elif quick is not None:
                self._known[quick] = code
        return code

    def _list(self) -> None:
        """Note the codes of values that were adopted."""
        for code in range(self._listed, len(self._values)):
            value = self._values[code]
            self._codes_of[canonical(value)] = code
            if type(value) is str:
                self._texts[value] = code
        self._listed = len(self._values)

    def _in_order(self, condition: Condition) -> npt.NDArray[np.int64]:
        """Return the codes of the values kept once that satisfy an operator of order."""
        (operand,) = condition.values.values()
        if self._sorted != len(self._values):
            self._sort()
        codes, keys = self._keys.get(kind(operand), (np.empty(0, np.int64), []))
        want = order_key(operand)
        if isinstance(keys, list):
            low, high = bisect.bisect_left(keys, want), bisect.bisect_right(keys, want)
        else:  # keys are rounded: values that round as the operand does are compared themselves
            at = _rounded(want)
            low, high = int(np.searchsorted(keys, at, "left")), int(np.searchsorted(keys, at, "right"))
        sure = codes[:low] if condition.operator in ("lt", "lte") else codes[high:]
        close = [n for n in codes[low:high].tolist() if condition({condition.field: self._values[n]})]
        return np.concatenate([sure, np.array(close, np.int64)])

    def _sort(self) -> None:
        """Put the values that came since into order."""
        by_kind: dict[str, list[tuple[Any, int]]] = {}
        for code, value in enumerate(self._values[self._sorted :], self._sorted):
            key = order_key(value)
            if key is not None:
                by_kind.setdefault(kind(value), []).append((key, code))
        for name, pairs in by_kind.items():
            codes, keys = self._keys.get(name, (np.empty(0, np.int64), []))
            if name in _KINDS:
                held, more = np.asarray(keys, np.float64), np.array([_rounded(key) for key, _ in pairs], np.float64)
                order = np.argsort(more, kind="stable")
                at = np.searchsorted(held, more[order], "right")
                new = np.array([code for _, code in pairs], np.int64)[order]
                self._keys[name] = np.insert(codes, at, new), np.insert(held, at, more[order])
            else:
                both = sorted([*zip(keys, codes.tolist(), strict=True), *pairs])
                self._keys[name] = np.array([code for _, code in both], np.int64), [key for key, _ in both]
        self._sorted = len(self._values)


def _numbers(values: Sequence[Any], types: set[type]) -> tuple[Codes, Words] | None:
    """Return codes and words of values that are missing or numbers, and that float64 holds exactly; None for others."""
    if not types <= {int, float, type(MISSING)}:
        return None
    codes = np.full(len(values), _KINDS["number"], np.uint8)
    if type(MISSING) in types:
        codes[[value is MISSING for value in values]] = _ABSENT
        values = [0.0 if value is MISSING else value for value in values]
    try:
        words = np.array(values, np.float64)
    except OverflowError:
        return None
    return (codes, words) if int not in types or (np.abs(words) < _EXACT).all() else None


def _word_of(value: Any) -> tuple[int, float] | None:
    """Return the code and the word of a number or a time; None for any other value, and for what float64 rounds."""
    code = _KINDS.get(kind(value))
    if code is None:
        return None
    key = value if code == _KINDS["number"] else order_key(value)
    try:
        word = float(key)
    except OverflowError:
        return None
    return (code, word) if word == key or (key != key) else None


def _compared(operator: str, words: Words, want: Any) -> Mask:
    """Compare float64s exactly with a number of any type."""
    at = _rounded(want)
    if math.isinf(at) and isinstance(want, int):  # larger than every finite float64
        at = math.copysign(float(np.finfo(np.float64).max), at)
    below, above = at < want, at > want
    match operator:
        case "lt":
            return words <= at if below else words < at
        case "lte":
            return words < at if above else words <= at
        case "gt":
            return words >= at if above else words > at
        case _:
            return words > at if below else words >= at


def _among(words: Words, some: Words) -> Mask:
    """Say of each word whether it is one of some; NaN is NaN."""
    found: Mask = words == some[0] if len(some) == 1 else np.isin(words, some)
    return found | np.isnan(words) if np.isnan(some).any() else found


def _grown(array: npt.NDArray[Any], least: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a copy with room for `least` items, and zeros where there were none."""
    made = np.zeros(max(len(array), least + least // 2), dtype)
    made[: len(array)] = array
    return made


def _rounded(key: Any) -> float:
    try:
        return float(key)
    except OverflowError:
        return math.inf if key > 0 else -math.inf
