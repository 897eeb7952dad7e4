"""Measures what encryption costs on one's own data, beside plain FAISS in the same run; imports store, backends.faiss.

job        what is measured: three variants of one data set
plain      the baseline: FAISS, unencrypted, the kind of index and parameters that the store chooses
encrypted  the store, as a search and as its first stage alone
timing     queries one at a time, in turns between the variants, and recall against exact search
memory     memory and opening time, each variant in a process of its own (child)
"""

from __future__ import annotations

from .job import Job, run

__all__ = ["Job", "run"]
