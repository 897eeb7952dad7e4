"""Spans and metrics, as OpenTelemetry's own SDK gets them: by its conventions, and without any content."""

import asyncio
import json
import subprocess
import sys

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations import opentelemetry

IDS, TEXT, TENANT = ["secret-id-1", "secret-id-2"], "a secret text", "secret-tenant"
VECTORS = np.eye(2, 3) * 0.123456
WHERE = {"secret-field": "secret-value"}


@pytest.fixture
def told():
    """Return what gives (spans, data points of metrics by name) told since the last time."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    opentelemetry.instrument(tracer_provider=tracers, meter_provider=MeterProvider([reader]))

    def read():
        spans = exporter.get_finished_spans()
        exporter.clear()
        found = reader.get_metrics_data()
        points = {}
        for resource in found.resource_metrics if found else ():
            for scope in resource.scope_metrics:
                points |= {metric.name: metric.data.data_points for metric in scope.metrics}
        return spans, points

    read.tracers = tracers
    yield read
    opentelemetry.uninstrument()


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def test_each_call_is_told_without_content(told, keyset):
    with ev.connect("memory:", keyset=keyset) as store:
        things = store.collection("things", 3, tenant=TENANT)
        things.upsert(IDS, VECTORS, [WHERE, {}], [TEXT, None])
        things.update(IDS[:1], metadata={"secret-field": "secret-value"})
        things.search(VECTORS[0], 2, WHERE)
        things.search(VECTORS, k=2)
        things.recommend(IDS[:1])
        things.get(where=WHERE)
        things.count(WHERE)
        with pytest.raises(errors.InputError, match="secret-id-3"):
            things.recommend(["secret-id-3"])
        things.verify()
        things.delete(ids=IDS)
    spans, points = told()
    seen = [
        (span.name, span.attributes.get("db.operation.batch.size"), span.attributes.get("db.response.returned_rows"))
        for span in spans
    ]
    assert seen == [
        ("upsert things", 2, None),
        ("update things", None, None),
        ("search things", None, 1),
        ("search things", 2, 4),
        ("recommend things", None, 1),
        ("get things", None, 1),
        ("count things", None, None),
        ("recommend things", None, None),
        ("verify things", None, None),
        ("delete things", 2, None),
    ]
    for span in spans:
        assert span.kind is trace.SpanKind.CLIENT
        assert span.attributes["db.system.name"] == "encvec_store"
        assert span.attributes["db.collection.name"] == "things"
        assert span.name.startswith(span.attributes["db.operation.name"])
        failed = span is spans[7]
        assert span.attributes.get("error.type") == ("InputError" if failed else None)
        assert span.status.is_ok is not failed
        assert span.status.description is None
        assert span.events == ()
    text = "".join(span.to_json() for span in spans)
    durations, rows = points["db.client.operation.duration"], points["db.client.response.returned_rows"]
    assert sum(point.count for point in durations) == len(spans)
    assert {point.attributes["db.operation.name"]: point.sum for point in rows} == {
        "search": 5,
        "recommend": 1,
        "get": 1,
    }
    (failure,) = [point for point in durations if "error.type" in point.attributes]
    assert (failure.attributes["db.operation.name"], failure.count) == ("recommend", 1)
    text += json.dumps([dict(point.attributes) for point in (*durations, *rows)])
    assert "secret" not in text
    assert "0.123" not in text


@pytest.mark.parametrize("kind", ["memory:", "postgresql:"])
def test_spans_of_async_calls_have_the_span_of_their_caller(request, told, keyset, kind):
    url, how = kind, {}
    if kind == "postgresql:":
        place = request.getfixturevalue("pg_place")
        url, how = place.dsn, {"schema": place.schema}
    tracer = told.tracers.get_tracer("caller")

    async def main():
        async with ev.aio.connect(url, keyset=keyset, **how) as store:
            things = await store.collection("things", 3)
            await things.upsert(IDS, VECTORS)

            async def one(name):
                with tracer.start_as_current_span(name):
                    await things.search(VECTORS[0], k=1)

            await asyncio.gather(one("a"), one("b"))

    asyncio.run(main())
    spans, _ = told()
    callers = {span.context.span_id: span.name for span in spans if span.name in ("a", "b")}
    searches = [span for span in spans if span.name == "search things"]
    assert sorted(callers[span.parent.span_id] for span in searches) == ["a", "b"]


def test_nothing_is_told_before_and_after(told, keyset):
    opentelemetry.uninstrument()
    with ev.connect("memory:", keyset=keyset) as store:
        store.collection("things", 3).upsert(IDS, VECTORS)
    assert told() == ((), {})
    code = "import sys, encvec_store as ev; ev.Collection; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
