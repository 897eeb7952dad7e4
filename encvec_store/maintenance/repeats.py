"""Finds ids that stand in a collection more than once, while `verify` goes through its records.

A write removes earlier records of the same id, under every key version. So a second one was put there by someone who
writes to the store: an older record, put back beside the newer.
"""

from __future__ import annotations

import numpy as np

from ..data.arrays import Bytes, Rows
from ..data.ids import Id
from ..engine.session import Session
from ..errors import EncvecError

__all__ = ["RepeatedIds"]


class RepeatedIds:
    """The ids seen so far, as record tokens under one key version: 24 bytes a record."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._version = session.keyring.primary
        self._tokens: list[Bytes] = []
        self._rows: list[Rows] = []

    def note(self, ids: dict[int, Id]) -> None:
        """Take note of the ids of records that were opened, by row, and look for the same ids under dead versions."""
        if not ids:
            return
        tokens = self._session.keyring.tokens(list(ids.values()), held=True)
        rows = np.fromiter(ids, np.int64, len(ids))
        for version, named in tokens.items():
            if version == self._version:
                self._add(named, rows)
            elif version in self._session.keyring.dead:  # such a record is not opened, so its id is not in `ids`
                hidden = self._session.records.find(named)
                self._add(tokens[self._version][hidden > 0], hidden[hidden > 0])

    def repeated(self) -> list[tuple[int, Id | None]]:
        """Return (row, id) of the records, still there, whose ids are given more than once."""
        if not self._rows:
            return []
        rows, tokens = np.concatenate(self._rows), np.concatenate(self._tokens).view("V16").reshape(-1)
        _, group, counts = np.unique(tokens, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        several = counts[group] > 1
        rows, group = rows[several], group[several]
        # a record that was written again while we went on was seen twice, but one of its rows is gone
        here = np.isin(rows, [row for row, *_ in self._session.records.audit(np.unique(rows))])
        rows, group = rows[here], group[here]
        _, group, counts = np.unique(group, return_inverse=True, return_counts=True)
        return [(int(row), self._id(int(row))) for row in np.unique(rows[counts[group.reshape(-1)] > 1])]

    def _add(self, tokens: Bytes, rows: Rows) -> None:
        self._tokens.append(np.ascontiguousarray(tokens))
        self._rows.append(rows)

    def _id(self, row: int) -> Id | None:
        try:
            _, records, _ = self._session.open_payloads(np.array([row]))
        except EncvecError:
            return None
        return records[0][0] if records else None
