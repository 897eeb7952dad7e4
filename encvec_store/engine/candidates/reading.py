"""How a search of a sealed collection reads the store, as the user chose it."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InputError

__all__ = ["READS", "Reading"]

READS = ("candidates", "hits")


@dataclass(frozen=True)
class Reading:
    """What a store that watches sees of searches. Raises InputError.

    Args:
        reads: "candidates" or "hits": which rows a search reads.
    """

    reads: str = "candidates"

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise InputError(f"reads must be one of {', '.join(READS)}, got {self.reads!r}")

    @property
    def sees(self) -> str:
        """What a server that watches sees, in words."""
        if self.reads == "candidates":
            return (
                "every search: the rows of its candidates, which are near the query and near each other, nearest first."
                " Who logs many searches learns which records are neighbours, and topics"
            )
        return (
            "every search: the rows that it returns, in random order, except those read a moment ago. Rows of one"
            " search are near each other. Who logs many searches learns which records are neighbours, and topics"
        )
