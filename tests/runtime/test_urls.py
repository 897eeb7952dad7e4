"""URLs with passwords: read strictly, shown without, and nothing of what cannot be read."""

import pytest

from encvec_store.runtime.urls import holds_password, parse, scrubbed, shown
from tests.kits.passwords import leaks, urls


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///db",
        "postgresql://ann:a%40b@h1:1,h2:2/db",
        "postgresql:///db?host=/run/pg&port=5",
        "postgresql://[::1]:5432/db",
        "postgresql://%2Frun%2Fpg/db?application_name=a%20%2B%20b",
        "postgresql://ann:p:w@h/db",
    ],
)
def test_a_whole_url_comes_back(url):
    read = parse(url)
    assert parse(read.whole()) == read
    assert read.whole() == url


def test_no_password_is_shown():
    assert [url for url in urls() if leaks(shown(url))] == []
    assert [url for url in urls() if leaks(scrubbed(f"cannot open {url}"))] == []
    assert [url for url in urls() if not holds_password(url) and url.partition(":")[0] not in ("faiss", "file")] == []
    assert [url for url in urls() if leaks(repr(read_or_none(url)))] == []


def read_or_none(url):
    try:
        return parse(url)
    except ValueError as error:
        return error


def test_what_holds_none_is_shown_as_it_is():
    for place in (
        "postgresql://ann@db/shop?sslmode=require",
        "faiss:///data/ann@work/store",
        "file:keys.json",
        "vectors of a@b.npy",
        "/tmp/x=1/vectors.npy",
    ):
        assert shown(place) == place
        assert scrubbed(f"no {place}") == f"no {place}"
        assert not holds_password(place)
