"""Keysets that key services wrapped earlier open as they did; see make_services."""

import json

import pytest

from encvec_store.errors import KeyContextError, KeysetError
from encvec_store.keys import Keyset
from encvec_store.keys.wrappers.service import digest_of, encoded
from tests.kat import make_services

DATA = json.loads(make_services.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*make_services.SPECS, "age"])
def test_wrapped_keysets_open(path_of, name):
    if name == "age":
        pytest.importorskip("pyrage", reason="pyrage (the extra age) is not installed")
    stored = DATA["files"][name]
    path = path_of(stored["content"])
    with make_services.played(bytes.fromhex(DATA["aes"]), DATA["rsa"]):
        keyset = Keyset.open(f"file:{path}", wrap=stored["wrap"])
        assert keyset.root(1).hex() == DATA["root"]
        with pytest.raises(KeyContextError):
            Keyset.open(f"file:{path}", wrap=stored["wrap"].replace("production", "staging"))
        path.write_text(stored["content"].replace("production", "productioN"), encoding="utf-8")
        with pytest.raises(KeysetError):
            Keyset.open(f"file:{path}", wrap=stored["wrap"].replace("production", "productioN"))


@pytest.fixture
def path_of(tmp_path, monkeypatch):
    identity = tmp_path / "identity"
    identity.write_text(DATA["age"], encoding="utf-8")
    monkeypatch.setenv("ENCVEC_AGE_IDENTITY", str(identity))

    def written(content):
        path = tmp_path / "keys.json"
        path.write_text(content, encoding="utf-8")
        return path

    return written


def test_the_bytes_of_a_context():
    context = {"purpose": "encvec-keyset", "keyset": "00ff", "context": "ä"}
    assert encoded(context) == b'{"context":"\\u00e4","keyset":"00ff","purpose":"encvec-keyset"}'
    assert digest_of(context).hex()[:16] == "d85e8bd5126b2bad"
