"""No password of a URL is shown, wherever the URL was given: the library, the keyset, the command line."""

import contextlib
import functools
import importlib.metadata
import io
import logging

import pytest

import encvec_store as ev
from encvec_store.cli.app import run
from encvec_store.runtime import urls as urlparts
from tests.kits.passwords import leaks, urls

URLS = list(urls("127.0.0.1:1"))


@pytest.fixture(autouse=True)
def plugins_are_looked_up_once(monkeypatch):
    """Hundreds of unknown schemes would each read what every installed package says of itself."""
    monkeypatch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))


def called(function, *args, **given):
    """Return what a call says when it fails."""
    try:
        made = function(*args, **given)
    except ev.errors.EncvecError as error:
        return f"{error!r} {error} {error.__cause__}"
    return repr(made)


def test_the_library(caplog):
    keyset = ev.Keyset.create("memory:")
    caplog.set_level(logging.DEBUG)
    wrong = [url for url in URLS if leaks(called(ev.connect, url, keyset=keyset))]
    wrong += [url for url in URLS if leaks(called(ev.Keyset.open, url))]
    wrong += [url for url in URLS if leaks(called(ev.Keyset.open, "memory:", wrap=url))]
    assert wrong == []
    assert leaks(caplog.text) == []


LINES = [
    "collections --store",
    "count docs --store",
    "keys list --keys",
    "db upgrade --store",
    "import docs.npy docs --store",
    "ingest docs",
    "import --table items docs",
    "export docs --plaintext --table items",
]


@pytest.mark.parametrize("line", LINES)
def test_the_command_line(home, line):
    """Each line gets a third of the URLs, with every scheme, password and place among them, and the next one others."""
    words = line.split()
    option = words.pop() if words[-1] in ("--store", "--keys") else None
    wrong = []
    for n, url in enumerate(URLS[LINES.index(line) % 3 :: 3]):
        given = [
            *words,
            f"{option}={url}" if option else url,
            *(["docs"] if words[0] == "import" and not option else []),
        ]
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
            assert run([*given, "--json"] if n % 4 else given) != 0
        wrong += [url] if leaks(said.getvalue()) else []
    assert wrong == []


def test_drivers_of_sqlalchemy(pg_place):
    """`postgresql+psycopg:` means what `postgresql:` does, in any case; other drivers are refused by name."""
    keyset = ev.Keyset.create("memory:")
    rest = pg_place.dsn.partition("://")[2]
    for scheme in ("postgresql+psycopg", "postgres", "PostgreSQL"):
        with ev.connect(f"{scheme}://{rest}", keyset=keyset, schema=pg_place.schema) as store:
            assert store.collections() == []
            assert urlparts.parse(store.url).scheme == "postgresql"
    for driver in ("asyncpg", "psycopg2", "pg8000"):
        with pytest.raises(
            ev.errors.UriError, match=rf"must be psycopg \(version 3\), got {driver}: write postgresql://"
        ):
            ev.connect(f"postgresql+{driver}://{rest}", keyset=keyset)
