"""What a user is told about the schemes of collections, mostly once per process. It goes to the log as a warning."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.session import Session
from ..schemes import Scheme
from ..sealing.config import CollectionConfig
from .staging import standing

__all__ = ["tell_of_change", "tell_of_ranking", "tell_of_unused"]

log = logging.getLogger("encvec_store")
_told: set[object] = set()


def tell_of_change(session: Session) -> None:
    """Say that a change of scheme is not finished, and how to go on with it, each time that this is called."""
    if (change := standing(session, session.refresh())) is not None:
        log.warning("collection %r: %s", session.records.spec.called, change["note"])


def tell_of_ranking(scheme: Scheme) -> None:
    """Say of a scheme that was chosen that the store ranks by it, and where to read what that gives away."""
    if scheme.noisy and scheme.name not in _told:
        _told.add(scheme.name)
        log.warning(
            "%s is a server-ranked scheme: who steals the store and has similar data can tell what its vectors are."
            " The default, sealed, shows nothing of them: see docs/threat-model.md",
            scheme.name,
        )


def tell_of_unused(config: CollectionConfig, given: Mapping[str, Any], options: Sequence[str]) -> None:
    """Say of a sealed collection which of the settings given have no effect on it.

    Args:
        config: the settings of the collection.
        given: arguments of the opening; what is None was not given.
        options: options of the store that were given and are for server-ranked schemes only.
    """
    unused = tuple(options) + (() if given.get("oversample") is None else ("oversample",))
    if config.ranked or not unused or unused in _told:
        return
    _told.add(unused)
    log.warning(
        "%s: only for server-ranked schemes (sketch, sap), without effect on sealed collections, whose index chooses"
        " by itself",
        ", ".join(unused),
    )
