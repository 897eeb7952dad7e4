"""Checks stored columns of metadata: they authenticate, belong to rows of the graphs, and agree with the payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows
from ..data.fields import MISSING, field_value
from ..errors import AuthenticationError, KeyUnavailableError
from ..runtime.concurrency import offload
from . import segments
from .column_blocks import block_of
from .columns import Block
from .rowsets import is_among
from .segments import MissingSegmentError, Segment

if TYPE_CHECKING:
    from .index import Opener
    from .saving import Shelf

__all__ = ["distrust", "faults"]

_SAMPLE = 500
"""Records of each segment whose payloads are compared."""
_UNCOVERED = 0.05
"""Payloads that did not open when columns were stored are in no segment."""


def faults(opener: Opener, listed: Sequence[Segment], rows: Rows | None) -> list[str]:
    """Return what is wrong with the columns that a manifest names, a line for each fault.

    Args:
        opener: the open collection.
        listed: the segments.
        rows: those of all graphs of the manifest, ascending; None if they are not known.

    Raises:
        MissingSegmentError: a segment is gone. Read the manifest again.
        KeyUnavailableError: the key version is disabled or destroyed.
    """
    found = []
    covered = np.empty(0, np.int64)
    for number, segment in enumerate(listed, 1):
        name = f"columns {number} of {len(listed)}"
        try:
            block = _block(opener, segment)
        except (AuthenticationError, ValueError) as error:
            found.append(f"{name} are damaged ({error})")
            continue
        if is_among(block.rows, covered).any() or (rows is not None and not is_among(block.rows, rows).all()):
            found.append(f"{name} are of other rows")
        covered = np.union1d(covered, block.rows)
        wrong, compared = _disagreeing(opener, block)
        if wrong:
            found.append(f"{name}: {wrong} of {compared} records have other metadata")
    if listed and not found and rows is not None:
        lacking = rows[~is_among(rows, covered)]
        if len(lacking) > _UNCOVERED * len(rows):  # records that are gone may be in graphs still, and have no payload
            lacking, _ = opener.records.payload_sizes(lacking)
        if len(lacking) > _UNCOVERED * len(rows):
            found.append(f"columns lack {len(lacking)} of {len(rows)} records")
    return found


def distrust(opener: Opener, shelf: Shelf) -> None:
    """Have the next save replace stored columns that this process has not read yet, if they are damaged or wrong."""
    records, keyring = opener.records, opener.keyring
    for last in (False, True):
        missing = []
        for listed, _ in shelf.manifests(records, keyring):
            for segment in listed.columns:
                if shelf.columns.knows(segment):
                    continue
                try:
                    for fault in faults(opener, [segment], None):
                        shelf.columns.give_up([segment], fault)
                except KeyUnavailableError:
                    continue
                except MissingSegmentError:  # or another process has stored a newer manifest meanwhile
                    missing.append(segment)
        if not missing:
            return
        if last:
            shelf.columns.give_up(missing, "a segment is missing")


def _block(opener: Opener, segment: Segment) -> Block:
    arrays = segments.opened(opener.records, opener.keyring, segment)
    block = offload(segment.count, block_of, arrays)
    if len(block.rows) != segment.count:
        raise ValueError("the number of rows is another than the manifest says")
    return block


def _disagreeing(opener: Opener, block: Block) -> tuple[int, int]:
    """Compare a sample of a block with the payloads: (records that differ, records compared)."""
    count = len(block.rows)
    places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    try:
        rows, payloads, _ = opener.open_payloads(block.rows[places])
    except AuthenticationError:  # a damaged record says nothing about the columns
        return 0, 0
    metadata = [metadata for _, metadata, _ in payloads]
    wrong = offload(len(rows), _differ, block, np.searchsorted(block.rows, rows), metadata)
    return int(wrong.sum()), len(rows)


def _differ(block: Block, places: npt.NDArray[np.intp], metadata: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.bool_]:
    """Say of each record whether its metadata is another than in the block."""
    known = block.columns.keys() | block.left_out
    wrong = np.array([not _are_known(each, known, block.nested) for each in metadata], np.bool_)
    for name, values in block.columns.items():
        wrong |= ~values.agree(places, [field_value(each, name) for each in metadata])
    return wrong


def _are_known(metadata: Mapping[str, Any], known: set[str], nested: frozenset[str]) -> bool:
    return all(
        name in known and (name in nested or not isinstance(value, dict))
        for name, value in metadata.items()
        if value is not MISSING
    )
