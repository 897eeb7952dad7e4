"""Stand-ins for types of pandas, which the package does not depend on: what makes them differ from Python's own."""

import datetime as dt


class Timestamp(dt.datetime):
    """A datetime with nanoseconds, which are no part of `datetime`, but of equality."""

    nanosecond = 0

    def __eq__(self, other):
        return super().__eq__(other) and self.nanosecond == getattr(other, "nanosecond", 0)

    __hash__ = dt.datetime.__hash__


class NaTType(dt.datetime):
    """A missing moment: a datetime to `isinstance`, of the year 1 to who asks the base class, and equal to nothing."""

    year = property(lambda self: float("nan"))

    def __eq__(self, other):
        return False

    __hash__ = dt.datetime.__hash__


def timestamp(nanosecond):
    """Return noon of a day, with nanoseconds."""
    value = Timestamp(2024, 2, 29, 12, 0, 0, 5)
    value.nanosecond = nanosecond
    return value


NAT = NaTType(1, 1, 1)


class Series:
    """A column of values: a length, a place for each, and an array's `ndim`, but no Sequence."""

    ndim = 1

    def __init__(self, values):
        self._values = list(values)

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    def __getitem__(self, key):
        return self._values[key]

    def __array__(self, dtype=None, copy=None):
        import numpy as np

        out = np.empty(len(self._values), object)
        out[:] = self._values
        return out if dtype is None else out.astype(dtype)


class Frame(Series):
    """A table: its length counts rows, and iterating it gives the names of columns."""

    ndim = 2
