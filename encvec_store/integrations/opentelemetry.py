"""Spans and metrics of OpenTelemetry, by its conventions for database clients (`db.*`).

Each call of a collection is a span, and is measured. Attributes say which operation it was, on which collection, how
many records went in and came out, and the type of an error. They never hold vectors, texts, filters, ids, metadata,
tenants or messages of errors, which may name ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..errors import InputError
from ..runtime.observing import observe

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise InputError(f"OpenTelemetry is not installed ({error}): pip install 'encvec-store[otel]'") from None

__all__ = ["instrument", "uninstrument"]

_NAME = "encvec_store"
_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
_ROWS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]
"""Bounds of the buckets that the conventions name."""
_READS = ("search", "recommend", "get")


class _Telling:
    """Makes a span of each call, and measures it."""

    def __init__(self, tracers: trace.TracerProvider | None, meters: metrics.MeterProvider | None) -> None:
        from .. import __version__

        self._tracer = trace.get_tracer(_NAME, __version__, tracers)
        meter = metrics.get_meter(_NAME, __version__, meters)
        self._seconds = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._rows = meter.create_histogram(
            "db.client.response.returned_rows",
            unit="{row}",
            description="Records that an operation returned.",
            explicit_bucket_boundaries_advisory=_ROWS,
        )

    def __call__(self, operation: str, collection: str, size: int | None, call: Callable[[], Any]) -> Any:
        about: dict[str, str | int] = {
            "db.system.name": _NAME,
            "db.operation.name": operation,
            "db.collection.name": collection,
        }
        with self._tracer.start_as_current_span(
            f"{operation} {collection}",
            kind=trace.SpanKind.CLIENT,
            attributes=about,
            record_exception=False,  # its message may name an id
            set_status_on_exception=False,
        ) as span:
            begin = time.perf_counter()
            try:
                result = call()
            except BaseException as error:
                about["error.type"] = type(error).__qualname__
                span.set_attribute("error.type", about["error.type"])
                span.set_status(trace.StatusCode.ERROR)
                raise
            finally:
                self._seconds.record(time.perf_counter() - begin, about)
            if operation in _READS:
                lists = result if result and isinstance(result[0], list) else [result]
                rows = sum(map(len, lists))
                size = len(lists) if operation == "search" else size
                span.set_attribute("db.response.returned_rows", rows)
                self._rows.record(rows, about)
            if size is not None and size > 1:  # by the conventions, one is no batch
                span.set_attribute("db.operation.batch.size", size)
            return result


def instrument(
    *, tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
) -> None:
    """Tell OpenTelemetry of the calls of all collections of this process, sync and async, from now on.

    Iterations of `scroll` are not told. A second call replaces the providers.

    Args:
        tracer_provider: by default the global one.
        meter_provider: by default the global one.
    """
    observe(_Telling(tracer_provider, meter_provider))


def uninstrument() -> None:
    """Tell it no more."""
    observe(None)
