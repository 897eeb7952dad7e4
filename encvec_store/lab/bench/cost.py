"""The monthly cost of a million vectors, at assumed prices that the page states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Cost", "Prices", "cost"]

_MIB_PER_GIB = 1024
_MILLION = 1e6


@dataclass(frozen=True)
class Prices:
    """Assumptions. The defaults are round numbers near what clouds charged in 2026; give your own."""

    memory: float = 3.0
    """Price of a GiB of memory per month."""
    disk: float = 0.1
    """Price of a GB of disk per month."""
    core: float = 25.0
    """Price of a processor core per month."""
    rate: float = 100.0
    """Queries per second to answer."""
    currency: str = "$"
    """Sign or code, shown before amounts."""

    def shown(self, amount: float) -> str:
        """Write an amount with its currency: $1,234.50, EUR 0.10."""
        return f"{self.currency}{' ' if self.currency[-1:].isalnum() else ''}{amount:,.2f}"


@dataclass(frozen=True)
class Cost:
    """Cost of a million vectors per month."""

    memory: float | None
    disk: float
    cores: float
    """To answer the queries on a collection of the measured size. A larger one needs more."""
    building: float
    """Core hours to build the index once."""

    @property
    def month(self) -> float | None:
        """The sum without building; None if memory was not measured."""
        return None if self.memory is None else self.memory + self.disk + self.cores


def cost(row: Mapping[str, Any], prices: Prices) -> Cost:
    """Work out what a row's variant costs: memory and disk in proportion to its vectors, processors to its queries.

    Memory is the most that a process which serves it held, less its libraries.
    """
    share = _MILLION / row["n"]
    held = None
    if row.get("peak_rss_mb") is not None:
        held = max(0.0, row["peak_rss_mb"] - (row.get("library_rss_mb") or 0)) / _MIB_PER_GIB * share
    return Cost(
        memory=None if held is None else held * prices.memory,
        disk=row["bytes"] / 1e9 * share * prices.disk,
        cores=prices.rate * (row.get("cpu_ms") or row["p50_ms"]) / 1e3 * prices.core,
        building=(row.get("build_cpu_s") or row["build_s"]) * share / 3600,
    )
