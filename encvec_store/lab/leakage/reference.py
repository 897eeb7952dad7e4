"""What this project measured on sentences of Banking77: shown where a run did not try it, and named as what it is.

The rows are those of the repository's results files, cut to what a page shows; a test compares them.
"""

from __future__ import annotations

from .reading import read
from .watched import Watched

__all__ = ["IN_ORDER", "REFERENCE", "WATCHED", "WHENCE"]

WHENCE = "texts of Banking77 (python -m benchmarks.leakage, .properties, .stolen and .watching)"
_SKETCH = {"subject": "sketch", "corpus": "banking77", "parameters": {"k": 250, "beta": 5.0}}
_SAP = {"subject": "sap", "corpus": "banking77", "parameters": {"beta": 2.5}}

REFERENCE, _ = read(
    [
        {**_SKETCH, "attack": "components", "adversary": "disjoint", "n": 8000, "key": 0, "identified": 0.987625},
        {**_SKETCH, "attack": "components", "adversary": "same", "n": 8000, "key": 0, "identified": 0.994375},
        {
            **{**_SKETCH, "attack": "pairs-expectation", "adversary": "disjoint", "pairs": 50, "n": 4000},
            "identified": 0.9949367088607595,
        },
        {**_SAP, "attack": "pca-icp", "adversary": "disjoint", "n": 4000, "key": 0, "identified": 0.9935},
        {**_SAP, "attack": "pca-icp", "adversary": "same", "n": 4000, "key": 0, "identified": 0.999},
        {
            **{**_SAP, "attack": "pairs-anchored", "adversary": "disjoint", "pairs": 50, "n": 4000, "key": 0},
            "identified": 0.9858227848101265,
        },
    ]
)
"""Trials on the ranked schemes at the noise of a collection's default."""

WATCHED = [
    Watched("banking77", False, 4000, 100_000, 10.0, 0.6911655003374658, 0.003481226244183155, 0.00725),
    Watched("banking77", True, 4000, 100_000, 0.0, 0.0, 0.0, 0.0),
]
"""The servers that watch `sealed`."""

IN_ORDER = {"sentences": 0.01725, "documents of many sizes": 0.286}
"""Shares of sealed records that the very same data name by the order of writes and padded sizes."""
