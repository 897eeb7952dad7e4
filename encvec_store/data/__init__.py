"""Plaintext values and their rules: records, fields, filters, metrics, precision."""

from __future__ import annotations

from .arrays import Bytes, Kept, Matrix, Rows
from .fields import Policy, Term
from .filters import AllOf, AnyOf, Filter, Match, Predicate, Present, Range
from .filters import parse as parse_filter
from .ids import Id
from .metrics import METRICS, Centre, Metric, as_vectors, metric
from .partitions import by_version, partition_of, partitions_of, version_of
from .precision import Precision
from .records import Hit, Record, encode_payload

__all__ = [
    "METRICS",
    "AllOf",
    "AnyOf",
    "Bytes",
    "Centre",
    "Filter",
    "Hit",
    "Id",
    "Kept",
    "Match",
    "Matrix",
    "Metric",
    "Policy",
    "Precision",
    "Predicate",
    "Present",
    "Range",
    "Record",
    "Rows",
    "Term",
    "as_vectors",
    "by_version",
    "encode_payload",
    "metric",
    "parse_filter",
    "partition_of",
    "partitions_of",
    "version_of",
]
