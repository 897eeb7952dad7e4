"""Keysets in a store's own database or folder: whoever copies the store has them too."""

import pytest

import encvec_store as ev
from encvec_store.errors import KeysetError, UriError
from encvec_store.keys import Keyset, StoredKeyset
from encvec_store.keys.storage.store import FILE

SECRET = "a long and random passphrase"


@pytest.fixture(params=["folder", "postgresql"])
def url(request, tmp_path):
    """The URL of a store that is not there yet."""
    if request.param == "folder":
        return f"faiss:{tmp_path}/store"
    return request.getfixturevalue("pg_place").url


def created(url, **how):
    return Keyset.create(f"store:{url}?wrap=passphrase", passphrase=SECRET, **how)


def test_a_store_and_its_keyset(url):
    keyset = Keyset.open_or_create(f"store:{url}?wrap=passphrase", passphrase=SECRET)
    with ev.connect(url, keyset=keyset) as store:
        things = store.collection("things", 2)
        things.upsert(["a"], [[1, 0]])
        keyset.rotate()
        things.rekey()
        keyset.destroy(1)
    again = Keyset.open(f"store:{url}", passphrase=SECRET)
    assert (again.primary, again.root(2)) == (2, keyset.root(2))
    with ev.connect(url, keyset=again) as store:
        assert [hit.id for hit in store.collection("things").search([1, 0], 1)] == ["a"]
        assert store.collection("things").verify().ok


def test_a_wrapper_must_be_named(url):
    with pytest.raises(KeysetError, match=r"lies beside the data: name what wraps it.*say \?wrap=passphrase"):
        Keyset.create(f"store:{url}", passphrase=SECRET)
    with pytest.raises(KeysetError, match="in clear it would protect nothing"):
        Keyset.create(f"store:{url}", wrap="none")
    with pytest.raises(KeysetError, match="no keyset "):
        Keyset.open(f"store:{url}", passphrase=SECRET)
    keyset = created(url)
    with pytest.raises(KeysetError, match="in clear it would protect nothing"):
        keyset.rewrap("none")
    keyset.rewrap("passphrase", passphrase="another one")
    assert Keyset.open(f"store:{url}", passphrase="another one").root(1) == keyset.root(1)


def test_writers_lose_no_key(url):
    root = created(url).root(1)
    with pytest.raises(KeysetError, match="holds a keyset already"):
        created(url)
    one, two = (Keyset.open(f"store:{url}", passphrase=SECRET) for _ in range(2))
    one.rotate()
    with pytest.raises(KeysetError, match="open it again"):
        two.rotate()
    assert Keyset.open(f"store:{url}", passphrase=SECRET).primary == 2
    assert one.root(1) == root


def test_a_keyset_that_someone_put_there(url, tmp_path):
    """In clear, it is refused: its author could read what is written under it."""
    foreign = Keyset.create(f"file:{tmp_path}/foreign.json", wrap="none")
    keyset = created(url)
    stored = StoredKeyset(f"store:{url}", passphrase=SECRET)
    stored.load()
    stored._storage.replace((tmp_path / "foreign.json").read_bytes())
    for given in ({}, {"passphrase": SECRET}, {"wrap": "passphrase", "passphrase": SECRET}):
        with pytest.raises(KeysetError, match=r"must be wrapped|must have the wrapper"):
            Keyset.open(f"store:{url}", **given)
    assert foreign.root(1) != keyset.root(1)


def test_the_folder_holds_a_private_file(tmp_path):
    created(f"faiss:{tmp_path}/store?index=hnsw")
    (file,) = (tmp_path / "store").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (FILE, 0o600)
    assert Keyset.open(f"store:{tmp_path}/store", passphrase=SECRET).primary == 1


def test_a_folder_is_named_as_in_connect(tmp_path):
    """Its name is percent-encoded in a URL, and not in a path."""
    keyset = created(f"faiss:{tmp_path}/a%20store")
    assert (tmp_path / "a store" / FILE).exists()
    assert Keyset.open(f"store:{tmp_path}/a store", passphrase=SECRET).root(1) == keyset.root(1)


def test_no_secret_is_shown():
    url = "postgresql://app:hidden@127.0.0.1:1/vectors?schema=other&sslpassword=hidden"
    with pytest.raises(KeysetError) as caught:
        Keyset.open(f"store:{url}", passphrase=SECRET)
    told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "store:postgresql://app@127.0.0.1:1/vectors?schema=other cannot be used (OperationalError)" in told
    assert "hidden" not in told + StoredKeyset(f"store:{url}").uri


@pytest.mark.parametrize("rest", ["", "memory:", "milvus://host", "postgresql://a@b@c/d", "faiss:", "faiss://host/x"])
def test_places_that_cannot_be(rest):
    with pytest.raises(UriError):
        Keyset.create(f"store:{rest}?wrap=passphrase", passphrase=SECRET)
