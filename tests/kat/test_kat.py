"""Known answers: what was written once is read, and written the same again. Made by `tests/kat/make.py`."""

import base64
import hashlib
import hmac
import json
import struct
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from encvec_store.crypto.blobs import BlobCipher
from encvec_store.crypto.envelope import RecordCipher
from encvec_store.crypto.labels import Purpose
from encvec_store.crypto.names import NameCipher, name_key_version, open_name_key
from encvec_store.crypto.read_cache import ReadCacheCipher
from encvec_store.crypto.segments import SegmentCipher
from encvec_store.data.precision import Precision
from encvec_store.data.records import decode_payload
from encvec_store.engine.hidden import buckets
from encvec_store.errors import AuthenticationError, KeyUnavailableError, TenantErasedError
from encvec_store.keys.keyset import Keyset
from encvec_store.schemes import device as devices
from encvec_store.schemes import scheme
from encvec_store.schemes.profile import Profile
from encvec_store.sealed_index import arrays
from encvec_store.sealing.config import CollectionConfig
from encvec_store.sealing.roots import TenantRoots
from tests.kat import make
from tests.kits.elsewhere import Elsewhere

FOLDER = Path(__file__).resolve().parent
DEVICES = ["cpu", "elsewhere", "cuda"]


@pytest.fixture
def device(request):
    """The processor, a stand-in for another device, or a GPU where there is one."""
    if request.param == "cuda" and devices.device("auto") is devices.CPU:
        pytest.skip("no GPU, or no CuPy")
    return Elsewhere() if request.param == "elsewhere" else devices.device(request.param)


def stored(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "name",
    ["labels", "tokens", "ids", "envelopes", "half", "index", "cache", "keysets", "names", "tenants"],
)
def test_written_the_same_again(name):
    assert as_json(make.MAKERS[f"{name}.json"]()) == stored(f"{name}.json")


def test_prf():
    now, then = as_json(make.prf()), stored("prf.json")
    assert now.pop("gaussians") == pytest.approx(then.pop("gaussians"), abs=1e-12)
    assert now == then


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_index_vectors(device):
    """Float arithmetic differs from machine to machine in the last places; nonces don't."""
    now, then = make.sap(device), stored("sap.json")
    assert len(then["cases"]) == 5
    for one, two in zip(now.pop("cases"), then.pop("cases"), strict=True):
        for name in ("vectors", "queries", "squared"):
            np.testing.assert_allclose(one.pop(name), two.pop(name), rtol=0, atol=1e-5)
        assert one == two
    assert now == then


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_sketches(device):
    """The point at the centre has a direction of its nonce's; all else as for `sap`."""
    now, then = make.sketch(device), stored("sketch.json")
    assert len(then["cases"]) == 3
    for one, two in zip(now.pop("cases"), then.pop("cases"), strict=True):
        for name in ("vectors", "queries"):
            np.testing.assert_allclose(one.pop(name), two.pop(name), rtol=0, atol=1e-5)
        assert as_json(one) == two
    assert now == then


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_a_sketch_lifted_from_a_centre(device):
    now, then = as_json(make.centred(device)), stored("centred.json")
    for name in ("points", "query_points", "vectors", "queries"):
        np.testing.assert_allclose(now.pop(name), then.pop(name), rtol=0, atol=1e-5)
    assert now == then


def test_a_centred_profile_opens():
    then = stored("centred.json")
    data = make.blob_cipher().open_blob("profile", 0, then["profile"], bytes.fromhex(then["blob"]))
    assert data.hex() == then["bytes"]
    assert data[0] == 2
    centre = Profile.from_bytes(data).centre
    assert (centre.point.tolist(), centre.radius) == (then["centre"]["point"], then["centre"]["radius"])


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_cells(device):
    now, then = make.cells(device), stored("cells.json")
    assert [case["scheme"]["name"] for case in then["cases"]] == ["sap", "sketch", "sketch"]
    for one, two in zip(now.pop("cases"), then.pop("cases"), strict=True):
        for name in ("vectors", "queries"):
            np.testing.assert_allclose(one.pop(name), two.pop(name), rtol=0, atol=1e-5)
        assert as_json(one) == two
    assert now == then


def test_names_open():
    then = stored("names.json")
    sealed, root = bytes.fromhex(then["sealed_key"]), bytes.fromhex(then["root"])
    assert name_key_version(sealed) == then["version"]
    key = open_name_key(root, sealed)
    assert key.hex() == then["key"]
    for entry in then["names"]:
        found = NameCipher(key).open(tuple(entry["tokens"]), bytes.fromhex(entry["sealed"]))
        assert list(found) == entry["place"]


def test_ids_open():
    """A payload gives back an id with its type: 1, "1" and a UUID are three."""
    found = [decode_payload(entry["payload"].encode())[0] for entry in stored("ids.json")["ids"]]
    text = "00000000-0000-0000-0000-000000000001"
    assert found == ["1", 1, -1, 2**64 - 1, text, uuid.UUID(text)]
    assert list(map(type, found)) == [str, int, int, int, str, uuid.UUID]


def test_profiles_open():
    small = [case for case in stored("sketch.json")["cases"] if "blob" in case]
    assert len(small) == 2
    for case in small:
        cipher = make.blob_cipher()
        data = cipher.open_blob("profile", 0, case["profile"], bytes.fromhex(case["blob"]))
        assert data.hex() == case["bytes"]
        assert hashlib.sha256(data).hexdigest() == case["profile"]
        held = Profile.from_bytes(data)
        assert (held.dim, held.k, held.records) == (case["dim"], case["k"], 5000)
        for name, digest in (("cells", case["profile"]), ("profile", "00" * 32)):
            with pytest.raises(AuthenticationError):
                cipher.open_blob(name, 0, digest, bytes.fromhex(case["blob"]))


def test_index_vectors_decrypt():
    """Only a whole vector can be decrypted: the small ones stand in the file whole."""
    small = [case for case in stored("sap.json")["cases"] if case["dim"] <= 8]
    assert len(small) == 3
    for case in small:
        spec = {"name": "sap", "beta": case["beta"], "query_beta": case["query_beta"]}
        keyed = scheme(spec).keyed(make.ROOT, make.CONTEXT, case["dim"])
        nonces = np.frombuffer(bytes.fromhex("".join(case["nonces"])), np.uint8).reshape(-1, 16)
        opened = keyed.decrypt(np.array(case["vectors"], np.float32), nonces)
        np.testing.assert_allclose(opened, make.points(2, case["dim"]), atol=1e-5)


def test_envelopes_open():
    data = stored("envelopes.json")
    cipher = RecordCipher(bytes.fromhex(data["root"]), 1, make.CONTEXT)
    sealed, plain = data["sealed"], data["plain"]
    rows = np.array([list(bytes.fromhex(envelope)) for envelope in sealed["vectors"]], np.uint8)
    assert cipher.open_vectors(rows).tolist() == plain["vectors"]
    payloads = cipher.open_payloads([bytes.fromhex(envelope) for envelope in sealed["payloads"]])
    assert [payload.decode() for payload in payloads] == plain["payloads"]
    beside = BlobCipher(bytes.fromhex(data["root"]), 1, make.CONTEXT)
    assert beside.open_settings(bytes.fromhex(sealed["settings"])).decode() == plain["settings"]
    assert beside.open_blob("profile", 0, "digest", bytes.fromhex(sealed["blob"])).decode() == plain["blob"]


def test_half_precision_opens():
    data = stored("half.json")
    cipher = RecordCipher(bytes.fromhex(data["root"]), 1, make.CONTEXT)
    rows = np.array([list(bytes.fromhex(envelope)) for envelope in data["sealed"]["vectors"]], np.uint8)
    assert cipher.open_vectors(rows).tolist() == data["plain"]["vectors"]
    payloads = cipher.open_payloads([bytes.fromhex(envelope) for envelope in data["sealed"]["payloads"]])
    assert [payload.decode() for payload in payloads] == data["plain"]["payloads"]
    config = CollectionConfig.from_json(data["settings"].encode(), make.INCARNATION)
    assert (config.precision, config.dim, config.max_norm) == (Precision.HALF, 3, 8.0)


def test_sealed_index_opens():
    data = stored("index.json")
    found = arrays.read(np.frombuffer(bytes.fromhex(data["container"]), np.uint8))
    assert {name: [array.dtype.name, array.tolist()] for name, array in found.items()} == data["arrays"]
    assert found["none"].shape == (0, 4)
    cipher = SegmentCipher(bytes.fromhex(data["root"]), 3, make.CONTEXT)
    part = bytes.fromhex(data["part"])
    assert cipher.open("index.3.00112233445566ff", 1, 2, 5, part).tobytes() == b"some content"
    change = SegmentCipher(bytes.fromhex(data["root"]), 3, make.CONTEXT, Purpose.CHANGE)
    plan = bytes.fromhex(data["change plan"])
    assert change.open("change.plan", 0, 1, 0, plan).tobytes() == b"some content"
    with pytest.raises(AuthenticationError):
        cipher.open("change.plan", 0, 1, 0, plan)
    fields = json.loads(data["manifest"])
    assert (fields["format"], fields["generation"], fields["parts"][0]["codes"]) == (3, 7, [data["segment"]])


def test_cache_opens():
    data = stored("cache.json")
    cipher = ReadCacheCipher(bytes.fromhex(data["root"]), 3, make.CONTEXT)
    for what, (number, content, sealed) in data["parts"].items():
        assert cipher.open(what, data["life"], number, bytes.fromhex(sealed)).hex() == content
    rows, vectors, payloads = make.CACHED
    found = buckets._unpacked(bytes.fromhex(data["bucket"]), vectors.shape[1])
    assert found == {row: (vector.tobytes(), payloads[row]) for row, vector in zip(rows.tolist(), vectors, strict=True)}


def test_column_opens():
    """The binding depends on every bit of the index vector, whose last places differ from machine to machine."""
    data, now = stored("column.json"), as_json(make.column())
    np.testing.assert_allclose(now["index"], data["index"], rtol=0, atol=1e-5)
    known = 2 * (16 + 28)  # hex digits of the token and of the header up to the binding
    assert [row[:known] for row in now["envelopes"]] == [row[:known] for row in data["envelopes"]]
    for envelope, index, identity, vector in zip(
        data["envelopes"], data["index"], data["identities"], data["plain"], strict=True
    ):
        sent = struct.pack(">HH", len(index), 0) + np.array(index, ">f4").tobytes()
        name = (identity or "").encode()
        row = len(name).to_bytes(4, "big") + name + bytes.fromhex(envelope) + sent
        assert make.column_cipher().open([row]).tolist() == [vector]


def check(keyset, data):
    assert keyset.primary == data["primary"]
    assert [item.state.value for item in keyset.versions] == data["states"]
    assert keyset.root(3).hex() == data["root"]
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        keyset.root(1)
    keyset.enable(2)
    assert keyset.root(2) == bytes(32)


@pytest.mark.parametrize("kdf", ["argon2id", "scrypt"])
def test_keyset_files_open(tmp_path, kdf):
    data = stored("keysets.json")
    path = tmp_path / "keys.json"
    path.write_bytes(data["files"][kdf].encode())
    assert json.loads(data["files"][kdf])["header"]["name"] == kdf
    check(Keyset.open(f"file:{path}", passphrase=data["passphrase"]), data)


def test_env_document_opens(monkeypatch):
    data = stored("keysets.json")
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", data["env"])
    check(Keyset.open("env:ENCVEC_TEST_KEYSET"), data)
    assert json.loads(base64.b64decode(data["env"]))["format"] == "encvec-keyset/1"


def test_a_keyset_with_tenants_opens(monkeypatch):
    """The derivation is computed here once more, from RFC 5869: the secret is the salt."""
    data = stored("tenants.json")
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", data["env"])
    keyset = Keyset.open("env:ENCVEC_TEST_KEYSET")
    assert json.loads(base64.b64decode(data["env"]))["format"] == "encvec-keyset/2"
    shown = [(item.name, item.life, item.since, bool(item.erased), item.wrap) for item in keyset.tenants]
    assert shown == [("acme", 2, 3, False, ""), ("gone", 1, 1, True, ""), ("their own", 1, 1, False, "vault:theirs")]
    secret, root = bytes.fromhex(data["secret"]), bytes.fromhex(data["root"])
    info = b"".join(b"s" + len(part).to_bytes(4, "big") + part for part in (b"encvec/1", b"tenant", b"acme"))
    expanded = hmac.digest(hmac.digest(secret, root, "sha256"), info + b"\1", "sha256")
    assert TenantRoots(keyset, "acme").root(3) == expanded == bytes.fromhex(data["tenant_root"])
    with pytest.raises(TenantErasedError):
        TenantRoots(keyset, "gone").root(3)


def test_points_are_exact():
    """What the answers depend on is the same on every machine."""
    assert make.points(1, 8)[0].tolist() == [(((i * 7919 + 17) % 1009) - 504) / 1024 for i in range(8)]
    assert 0.3 < np.linalg.norm(make.points(1, 385)) < 3


def test_files_are_not_overwritten():
    before = {name: stored(name) for name in make.MAKERS}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kat.make"], cwd=FOLDER.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--force overwrites" in done.stderr
    assert {name: stored(name) for name in make.MAKERS} == before
