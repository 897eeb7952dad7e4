"""Measures what encryption costs on your own data, next to plaintext in the same run.

job        what is measured: the sides of one data set in one store
sides      plaintext FAISS or pgvector, and the store under a scheme
source     vectors that need not fit in memory, and judgements
truth      exact neighbours; recall, distance ratio, nDCG
timing     queries one at a time, in turns between the variants; from many threads; in batches
memory     memory and opening time, each variant in a process of its own (child)
"""

from __future__ import annotations

from .job import BenchJob, Measured, measure, run
from .source import Data, Labels, Qrels, VectorSource

__all__ = ["BenchJob", "Data", "Labels", "Measured", "Qrels", "VectorSource", "measure", "run"]
