"""Describes a collection for people and monitoring."""

from __future__ import annotations

from typing import Any

from ..engine.candidates import Sources
from ..engine.session import Session
from .lifecycle import Lifecycle
from .recall import RecallWatch
from .staging import standing

__all__ = ["statistics"]


def statistics(
    session: Session, lifecycle: Lifecycle, sources: Sources, watch: RecallWatch | None, oversample: int | None
) -> dict[str, Any]:
    """Return what `Collection.stats` returns.

    Args:
        session: of the collection.
        lifecycle: of the collection.
        sources: of the collection.
        watch: what estimates recall, if anything does.
        oversample: that of this opening; None if it has none of its own.
    """
    config = session.refresh()
    records, index = session.records.stats(), session.index.stats()
    return {
        "name": session.records.spec.place[1],
        "tenant": session.records.spec.place[0],
        "count": session.records.count(),
        "dim": config.dim,
        "metric": config.metric.name,
        "precision": str(config.precision),
        "model": config.model,
        "max_norm": config.max_norm,
        "scheme": {"name": config.scheme.name, **config.scheme.parameters()},
        "leakage": config.scheme.leakage,
        **sources.stats(config.index_dim),
        "profile": lifecycle.stats(),
        "recall": None if watch is None else watch.stats(),
        "fields": config.policies and {name: policy.value for name, policy in config.policies.items()},
        "oversample": (oversample or config.oversample) if config.ranked else None,
        "calibration": config.calibration,
        "key_versions": session.key_versions(),
        "cells": lifecycle.cells(),
        "sealed_index": lifecycle.index_stats(),
        "primary": session.keyring.primary,
        "encrypted": config.encrypted,
        "change": standing(session, config),
        "maintenance": {"mode": lifecycle.mode, "due": lifecycle.due()},
        "store": {**records, **index, "bytes": {**records["bytes"], **index["bytes"]}},
    }
