"""URLs and options of the PostgreSQL store; no server needed."""

import pytest

from encvec_store import errors
from encvec_store.storage.postgres.options import PostgresOptions, parse_url


@pytest.mark.parametrize(
    ("url", "target", "shown"),
    [
        ("postgresql://", "postgresql://", "postgresql://"),
        ("postgresql:///db", "postgresql:///db", "postgresql:///db"),
        ("postgres://u@h/db", "postgresql://u@h/db", "postgresql://u@h/db"),
        ("postgresql+psycopg://u:pw@h:5/db", "postgresql://u:pw@h:5/db", "postgresql://u@h:5/db"),
        ("postgresql://u:a%40b@h1:1,h2:2/db", "postgresql://u:a%40b@h1:1,h2:2/db", "postgresql://u@h1:1,h2:2/db"),
        (
            "postgresql://h/db?m=24&sslmode=require&password=pw&schema=mine",
            "postgresql://h/db?sslmode=require&password=pw",
            "postgresql://h/db?sslmode=require",
        ),
        (
            "postgresql:///db?host=/run/pg&port=5",
            "postgresql:///db?host=/run/pg&port=5",
            "postgresql:///db?host=/run/pg&port=5",
        ),
    ],
)
def test_urls(url, target, shown):
    assert parse_url(url, {})[:2] == (target, shown)


def test_options_come_from_the_url_and_keywords_win():
    url = "postgresql://h/db?m=24&index=hnsw&pooler=1&lock_timeout=2.5"
    assert parse_url(url, {"m": 8})[2] == PostgresOptions(m=8, index="hnsw", pooler=True, lock_timeout=2.5)
    assert parse_url("postgresql://", {})[2] == PostgresOptions()


@pytest.mark.parametrize(
    ("url", "given", "message"),
    [
        ("postgresql:/db", {}, "must be like postgresql://user@host/database"),
        ("mysql://h/db", {}, "must be like postgresql://user@host/database"),
        ("postgresql://h/db?mm=1", {}, "mm"),
        ("postgresql://h/db?m=1&m=2", {}, "m is given twice"),
        ("postgresql://h/db?m=x", {}, "m must be an integer, got 'x'"),
        ("postgresql://h/db", {"colour": 1}, "unknown option 'colour'"),
        ("postgresql://h/db", {"index": "flat"}, "index must be one of auto, none, hnsw, ivfflat"),
        ("postgresql://h/db", {"storage": "sq8"}, "storage must be one of"),
        ("postgresql://h/db", {"m": 1}, "m must be from 2 to 100"),
        ("postgresql://h/db", {"m": 40}, "ef_construction must be at least twice m"),
        ("postgresql://h/db", {"lock_timeout": float("nan")}, "lock_timeout"),
        ("postgresql://h/db", {"pooler": "maybe"}, "pooler must be 1 or 0"),
        ("postgresql://h/db", {"schema": "pg_mine"}, "schema"),
        ("postgresql://h/db", {"schema": ""}, "schema"),
        ("postgresql://h/db", {"schema": "a%b"}, "schema"),
        ("postgresql://h/db", {"schema": "x" * 64}, "schema"),
        ("postgresql://h/db", {"build_memory": "lots"}, "build_memory"),
        ("postgresql://[h/db", {}, "malformed"),
    ],
)
def test_what_means_nothing_is_refused(url, given, message):
    with pytest.raises(errors.UriError, match=message):
        parse_url(url, given)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/db?nonsense=1", "postgresql://u:secret@h:port/db?m=x"])
def test_errors_do_not_tell_the_password(url):
    with pytest.raises(errors.UriError) as caught:
        parse_url(url, {})
    assert "secret" not in str(caught.value)
