"""The capability of a record store that can keep the names of tenants and collections sealed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..errors import ConfigMismatchError
from .protocol import Blob, CollectionSpec, Records

__all__ = ["NAME", "KeepsNames", "check_kind_of_names", "check_no_collections", "sealed_name"]

NAME = "name"
"""Name of the blob that holds a collection's sealed name."""


@runtime_checkable
class KeepsNames(Protocol):
    """A record store that can hold tokens in the place of names, with sealed names beside them.

    Whether names are tokens is said by the name key: there is one, or names are in clear. `create` refuses a name of
    the other kind in the transaction that would write it, so a store never holds both.
    """

    def name_key(self) -> bytes | None:
        """Return the sealed name key; None if names are in clear."""
        ...

    def keep_name_key(self, sealed: bytes, expect: bytes | None = None) -> bool:
        """Store the sealed name key in one durable transaction.

        Returns False, with nothing written, if the one that is stored is not `expect`; None expects that there is none.

        Raises:
            ConfigMismatchError: there is none, and the store has collections, whose names are in clear.
        """
        ...

    def named(self, tenant: str | None = None) -> list[tuple[str, str, bytes]]:
        """List (tenant, name, sealed name) of collections, of one tenant if it is given; b"" for one without a name."""
        ...

    def create(self, spec: CollectionSpec, config: bytes, sealed_name: bytes | None = None) -> Records:
        """Do what `RecordStore.create` does, with the sealed name of a collection, if its names are tokens.

        Raises:
            ConfigMismatchError: the store keeps names of the other kind. Nothing was written.
        """
        ...


def check_kind_of_names(place: str, *, sealed: bool, given: bool) -> None:
    """Check that a new name is of the kind that the store keeps.

    Args:
        place: the store.
        sealed: whether it keeps names sealed.
        given: whether the new name is sealed.

    Raises:
        ConfigMismatchError: only one of them is.
    """
    if sealed != given:
        raise ConfigMismatchError(
            f"names in {place} are {'sealed' if sealed else 'in clear'} since it was opened here: open it again"
        )


def check_no_collections(place: str, *, there: bool) -> None:
    """Check that a store may begin to keep names sealed. Raises ConfigMismatchError if there are collections."""
    if there:
        raise ConfigMismatchError(
            f"{place} has collections, whose names are in clear; names are sealed only in a store that was begun so:"
            ' export the collections, and import them into a new store, opened with names="sealed"'
        )


def sealed_name(content: bytes | None) -> dict[str, Blob]:
    """Return the blobs of a new collection with this sealed name, if it has one."""
    return {} if content is None else {NAME: Blob(0, content)}
