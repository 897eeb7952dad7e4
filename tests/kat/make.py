"""Makes the known-answer files beside it: `python -m tests.kat.make [--force]`, from the repository's root.

They pin every stored format. A file that exists is what data out there looks like: it is not made anew to
get a test to pass. A new format gets a new file, and the old one stays as long as the old data can be read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import sys
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm

from encvec_store.crypto.blobs import BlobCipher
from encvec_store.crypto.envelope import RecordCipher, Stamp, headers
from encvec_store.crypto.labels import Purpose, derive, encode, tenant_root
from encvec_store.crypto.names import NameCipher, seal_name_key
from encvec_store.crypto.prf import Keystream, Pmac
from encvec_store.crypto.read_cache import ReadCacheCipher
from encvec_store.crypto.segments import SegmentCipher
from encvec_store.data.ids import id_bytes
from encvec_store.data.metrics import Centre, metric
from encvec_store.data.precision import Precision
from encvec_store.data.records import encode_payload
from encvec_store.engine.hidden import buckets
from encvec_store.engine.hidden.cache import Follows
from encvec_store.integrations.cipher import ColumnCipher
from encvec_store.keys import StoredKeyset
from encvec_store.keys.document import Document, TenantKey
from encvec_store.keys.keyset import Keyset, KeyState, KeyVersion
from encvec_store.schemes import scheme
from encvec_store.schemes.device import CPU
from encvec_store.schemes.profile import Profile
from encvec_store.schemes.rotation import DENSE
from encvec_store.schemes.sketch import Sketch
from encvec_store.sealed_index import arrays, manifest, segments
from encvec_store.sealing.config import CollectionConfig
from encvec_store.sealing.keyring import Keyring
from encvec_store.sealing.roots import TenantRoots

FOLDER = Path(__file__).resolve().parent
ROOT = bytes(range(32))
TENANT, COLLECTION = "acme", "faces"
INCARNATION = bytes(range(200, 216))
CONTEXT = (TENANT, COLLECTION, INCARNATION)
PASSPHRASE = "correct horse"
IDS = ["a", "record-0000000001", "", "\N{GREEK SMALL LETTER ALPHA}"]


def fixed_random():
    """Replace the operating system's randomness by bytes that count up, the same in every run."""
    counter = itertools.count(1)
    return mock.patch("os.urandom", lambda n: bytes(next(counter) % 256 for _ in range(n)))


def points(n, dim):
    """Points of length near 1 whose coordinates are exact in float32: the noise depends on every bit of them."""
    integers = (np.arange(n * dim, dtype=np.int64) * 7919 + 17) % 1009 - 504
    return (integers / 2.0 ** (8 + dim.bit_length() // 2)).astype(np.float32).reshape(n, dim)


def cipher():
    return RecordCipher(ROOT, 1, CONTEXT)


def blob_cipher():
    return BlobCipher(ROOT, 1, CONTEXT)


def _nonces(n):
    return np.arange(16 * n, dtype=np.uint8).reshape(n, 16)


def labels():
    tuples = [(), ("",), ("a", "b-c"), ("a-b", "c"), (b"a", 1, "1", -7)]
    return {
        "root": ROOT.hex(),
        "encode": [{"parts": [repr(part) for part in parts], "bytes": encode(*parts).hex()} for parts in tuples],
        "derive": {
            purpose.value: derive(ROOT, purpose, *CONTEXT).hex() for purpose in Purpose if purpose is not Purpose.TENANT
        },
    }


def prf():
    lengths = [0, 1, 15, 16, 17, 32, 52, 1552]
    messages = {length: bytes(i % 251 for i in range(length)) for length in lengths}
    nonce = bytes(range(12)) + b"\xff\xff\xff\xfe"
    stream = Keystream(ROOT)
    return {
        "key": ROOT.hex(),
        "pmac": {str(length): Pmac(ROOT).tags_of([message]).tobytes().hex() for length, message in messages.items()},
        "ctr": {"nonce": nonce.hex(), "stream": stream.words(np.frombuffer(nonce, np.uint8)[None], 16).tobytes().hex()},
        "gaussians": stream.gaussians(5, stream=3).tolist(),
        "permutation": stream.permutation(10, stream=3).tolist(),
    }


def tokens():
    terms = [("country", b"de"), ("country", b""), ("", b"de")]
    return {
        "root": ROOT.hex(),
        "record": {id: token.tobytes().hex() for id, token in zip(IDS, cipher().tokens(IDS), strict=True)},
        "blind": [
            {"field": name, "value": value.hex(), "token": token.hex()}
            for (name, value), token in zip(terms, cipher().blind_tokens(terms), strict=True)
        ],
        "binding": cipher().bindings(cipher().tokens(IDS[:1]), _nonces(1), points(1, 3), points(1, 5)).tobytes().hex(),
        "index-cache": cipher().cache_tag(b"index").hex(),
    }


def ids():
    """Tokens, canonical bytes and payloads of ids that look alike and differ by type."""
    named = ["1", 1, -1, 2**64 - 1, "00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)]
    return {
        "root": ROOT.hex(),
        "ids": [
            {
                "bytes": id_bytes(id).hex(),
                "token": token.tobytes().hex(),
                "payload": encode_payload(id, {}, None).decode(),
            }
            for id, token in zip(named, cipher().tokens(named), strict=True)
        ],
    }


def envelopes():
    of, vectors = cipher(), points(2, 3)
    names = of.tokens(IDS[:2])
    nonces = _nonces(2)
    heads = headers(Stamp(1, 2, 1), nonces, of.bindings(names, nonces, vectors, points(2, 5)))
    payloads = [b"", b'["a",{"country":"de"},null]']
    with fixed_random():
        sealed = {
            "vectors": [row.tobytes().hex() for row in of.seal_vectors(names, heads, vectors)],
            "payloads": [envelope.hex() for envelope in of.seal_payloads(names, heads, payloads)],
            "settings": blob_cipher().seal_settings(b'{"dim":3}').hex(),
            "blob": blob_cipher().seal_blob("profile", 0, "digest", b"some profile").hex(),
        }
    plain = {
        "vectors": vectors.tolist(),
        "payloads": [payload.decode() for payload in payloads],
        "settings": '{"dim":3}',
        "blob": "some profile",
    }
    return {"root": ROOT.hex(), "headers": [head.tobytes().hex() for head in heads], "sealed": sealed, "plain": plain}


def half():
    """Vectors in half precision: format 2, whose header, binding and envelopes are over float16."""
    of, vectors, index = cipher(), points(2, 3).astype(np.float16), points(2, 5).astype(np.float16)
    names = of.tokens(IDS[:2])
    nonces = _nonces(2)
    heads = headers(Stamp(1, 2, 1, Precision.HALF), nonces, of.bindings(names, nonces, vectors, index))
    config = CollectionConfig.build(
        dim=3,
        metric_name="l2",
        scheme_spec={"name": "sap", "beta": 2.0},
        fields=None,
        max_norm=8.0,
        oversample=None,
        precision_name="half",
    )
    with fixed_random():
        sealed = {
            "vectors": [row.tobytes().hex() for row in of.seal_vectors(names, heads, vectors)],
            "payloads": [envelope.hex() for envelope in of.seal_payloads(names, heads, [b"", b'["a",{},null]'])],
        }
    return {
        "root": ROOT.hex(),
        "headers": [head.tobytes().hex() for head in heads],
        "sealed": sealed,
        "plain": {"vectors": vectors.astype(float).tolist(), "payloads": ["", '["a",{},null]']},
        "settings": config.to_json().decode(),
    }


def of_the_collection():
    return {"root": ROOT.hex(), "tenant": TENANT, "collection": COLLECTION, "incarnation": INCARNATION.hex()}


def sap(device=CPU):
    cases = []
    for dim, beta, query_beta in [(1, 2.0, 0.0), (8, 2.0, 0.0), (8, 0.0, 1.5), (385, 2.0, 0.5), (DENSE + 1, 2.0, 0.5)]:
        chosen = scheme({"name": "sap", "beta": beta, "query_beta": query_beta})
        keyed = chosen.keyed(ROOT, CONTEXT, dim, device=device)
        vectors, nonces = keyed.encrypt(points(2, dim), cipher().tokens(IDS[:2]), points(2, dim))
        queries = keyed.encrypt_query(points(1, dim))
        at = list(range(dim)) if dim <= 8 else [0, 1, dim // 3, dim // 2, dim - 2, dim - 1]
        cases.append(
            {
                "dim": dim,
                "beta": beta,
                "query_beta": query_beta,
                "nonces": [nonce.tobytes().hex() for nonce in nonces],
                "at": at,
                "vectors": vectors[:, at].astype(float).round(8).tolist(),
                "squared": np.square(vectors.astype(float)).sum(axis=1).round(6).tolist(),
                "queries": queries[:, at].astype(float).round(8).tolist(),
            }
        )
    return {**of_the_collection(), "cases": cases}


def profile(dim, k):
    """A profile that is exact in float32: coordinate axes in another order, halving eigenvalues."""
    order = (np.arange(k) * 7 + 3) % dim
    eigenvalues = 2.0 ** -(np.arange(k) % 20).astype(np.float64)
    return Profile(
        points(1, dim)[0] / 8, np.eye(dim, dtype=np.float32)[:, order], eigenvalues.astype(np.float32), 5000, k
    )


def sketch(device=CPU):
    """Profiles, sealed and digested, and index vectors and queries under them; a point at the very centre too."""
    cases = []
    for dim, k, beta, gamma, query_beta in [(9, 4, 1.8, 0.0, 0.0), (16, 5, 0.0, 0.5, 0.0), (401, 192, 2.5, -0.5, 1.8)]:
        held = profile(dim, k)
        fitted = Sketch(beta=beta, gamma=gamma, query_beta=query_beta).fitted(held)
        keyed = fitted.keyed(ROOT, CONTEXT, dim, held, device)
        rows = np.concatenate([points(2, dim), held.mean[None]])
        vectors, nonces = keyed.encrypt(rows, cipher().tokens(IDS[:3]), rows)
        queries = keyed.encrypt_query(points(1, dim))
        at = list(range(k)) if k <= 8 else [0, 1, k // 3, k // 2, k - 2, k - 1]
        case = {
            "dim": dim,
            **fitted.parameters(),
            "nonces": [nonce.tobytes().hex() for nonce in nonces],
            "at": at,
            "vectors": vectors[:, at].astype(float).round(8).tolist(),
            "queries": queries[:, at].astype(float).round(8).tolist(),
        }
        if k <= 8:
            with fixed_random():
                case["blob"] = blob_cipher().seal_blob("profile", 0, held.digest, held.to_bytes()).hex()
            case["bytes"] = held.to_bytes().hex()
        cases.append(case)
    return {**of_the_collection(), "cases": cases}


def centred(device=CPU):
    """A profile of format 2, which keeps what l2 is lifted from, and vectors lifted and encrypted under it."""
    centre = Centre(points(1, 7)[0], 1.5)
    held = replace(profile(9, 4), centre=centre)
    l2, beyond = metric("l2"), centre.point + np.float32(2)
    rows = np.concatenate([points(2, 7), centre.point[None], beyond[None]])
    lifted, asked = l2.lift(rows, 8.0, centre), l2.lift_query(points(1, 7), 8.0, centre)
    fitted = Sketch(beta=1.8, gamma=0.0, query_beta=0.0).fitted(held)
    keyed = fitted.keyed(ROOT, CONTEXT, 9, held, device)
    vectors, nonces = keyed.encrypt(lifted, cipher().tokens(IDS[:4]), rows)
    with fixed_random():
        blob = blob_cipher().seal_blob("profile", 0, held.digest, held.to_bytes())
    return {
        **of_the_collection(),
        **fitted.parameters(),
        "max_norm": 8.0,
        "centre": {"point": centre.point.tolist(), "radius": centre.radius},
        "bytes": held.to_bytes().hex(),
        "blob": blob.hex(),
        "nonces": [nonce.tobytes().hex() for nonce in nonces],
        "points": lifted.astype(float).round(8).tolist(),
        "query_points": asked.astype(float).round(8).tolist(),
        "vectors": vectors.astype(float).round(8).tolist(),
        "queries": keyed.encrypt_query(asked).astype(float).round(8).tolist(),
    }


def cells(device=CPU):
    """Index vectors and queries in cells, and which cell each record belongs to."""
    cases = []
    for spec in (
        {"name": "sap", "beta": 2.0, "query_beta": 0.5, "cells": 3},
        {"name": "sketch", "beta": 3.6, "cells": 2},
        {"name": "sketch", "beta": 1.8, "gamma": -0.5, "query_beta": 1.8, "cells": 5},
    ):
        dim, held = 9, profile(9, 4)
        chosen = scheme(spec)
        if chosen.needs_profile:
            chosen = chosen.fitted(held)
        keyed = chosen.keyed(ROOT, CONTEXT, dim, held, device)
        rows = np.concatenate([points(2, dim), held.mean[None]])
        names = cipher().tokens(IDS[:3])
        vectors, nonces = keyed.encrypt(rows, names, rows.astype(np.float16))  # kept in half precision
        case = {
            "dim": dim,
            "scheme": {"name": chosen.name, **chosen.parameters()},
            "cells": keyed.cells_of(names).tolist(),
            "nonces": [nonce.tobytes().hex() for nonce in nonces],
            "vectors": vectors.astype(float).round(8).tolist(),
            "queries": keyed.encrypt_queries(points(1, dim))[:, 0].astype(float).round(8).tolist(),
        }
        cases.append(case)
    return {**of_the_collection(), "cases": cases}


def column_cipher():
    config = CollectionConfig.build(
        dim=3, metric_name="l2", scheme_spec={"name": "sap", "beta": 2.0}, fields=None, max_norm=8.0, oversample=None
    )
    return ColumnCipher(keyset(StoredKeyset("env:UNUSED")), TENANT, "items.embedding", config)


def column():
    """A row of a mapped column whose primary key is bound, and one whose key is not known."""
    of, vectors = column_cipher(), points(2, 3)
    with fixed_random():
        index, envelopes = of.seal(vectors, ["2:17", None])
    return {
        "root": ROOT.hex(),
        "identities": ["2:17", None],
        "index": index.astype(float).tolist(),
        "envelopes": [row.tobytes().hex() for row in envelopes],
        "plain": vectors.tolist(),
    }


INDEXED = {
    "rows": np.array([1, 2, 2**40], np.int64),
    "codes": np.arange(6, dtype=np.uint8).reshape(3, 2),
    "scale": np.array([-0.5, 3.25], np.float32),
    "half": np.array([[[1.5]]], np.float16),
    "none": np.zeros((0, 4), np.uint32),
}


def index():
    """An array container, a sealed part, and a segment and a manifest as they are stored; of these, the digests."""
    of = SegmentCipher(ROOT, 3, CONTEXT)
    ring = Keyring(keyset(StoredKeyset("env:UNUSED")), *CONTEXT)
    with fixed_random():
        part = of.seal("index.3.00112233445566ff", 1, 2, 5, b"some content")
        segment, blobs = segments.sealed(ring, 3, INDEXED, 3)
        stored = [(name, part, blob.content) for name, part, blob in blobs]
        graph = manifest.StoredGraph("hnsw", (segment,), segments.Segment("index.3.00112233445566ff", 3, 1, 64), 3)
        listed = manifest.seal(ring, manifest.Manifest(3, 1, 2, "l2", 7, 1, -5, (graph,)))
        plan = SegmentCipher(ROOT, 3, CONTEXT, Purpose.CHANGE).seal("change.plan", 0, 1, 0, b"some content")
    opened = ring.open_segment("index.3", 0, 1, 0, listed.content)
    return {
        **of_the_collection(),
        "container": np.concatenate(arrays.pieces(INDEXED)).tobytes().hex(),
        "arrays": {name: [array.dtype.name, array.tolist()] for name, array in INDEXED.items()},
        "part": part.hex(),
        "change plan": plan.hex(),
        "segment": [segment.name, segment.count, segment.parts, segment.size],
        "blobs": [[name, part, len(content), hashlib.sha256(content).hexdigest()] for name, part, content in stored],
        "manifest": opened.tobytes().decode().rstrip(),
        "manifest blob": [len(listed.content), hashlib.sha256(listed.content).hexdigest()],
    }


CACHED = np.array([3, 2**40], np.int64), np.arange(12, dtype=np.uint8).reshape(2, 6), {3: b"first", 2**40: b""}


def cache():
    """A bucket of a local cache before it is sealed, the three sorts of its parts, and the order of rows."""
    of, bucket = ReadCacheCipher(ROOT, 3, CONTEXT), buckets._packed(*CACHED)
    follows = np.array(Follows(content=2, generation=7, stamp=5), "<i8").tobytes()
    contents = {"life": (0, follows), "epoch": (4, CACHED[0].astype("<i8").tobytes()), "bucket": (9, bucket)}
    with fixed_random():
        sealed = {what: of.seal(what, 6, number, content) for what, (number, content) in contents.items()}
    return {
        **of_the_collection(),
        "life": 6,
        "bucket": bucket.hex(),
        "parts": {what: [number, content.hex(), sealed[what].hex()] for what, (number, content) in contents.items()},
        "order": of.order(np.arange(1, 40)).tolist(),
    }


def keyset(stored):
    """A keyset with a version in each state, in the place given and unsaved."""
    created = "2026-11-23T00:00:00+00:00"
    versions = [
        KeyVersion(1, KeyState.DESTROYED, created, b""),
        KeyVersion(2, KeyState.DISABLED, created, bytes(32)),
        KeyVersion(3, KeyState.ENABLED, created, ROOT),
    ]
    return Keyset(stored, Document({item.version: item for item in versions}, 3))


def keysets():
    document = keyset(StoredKeyset("env:UNUSED"))
    files = {}
    for kdf in ("argon2id", "scrypt"):
        without = mock.patch(
            "encvec_store.keys.wrappers.passphrase.Argon2id", side_effect=UnsupportedAlgorithm("left out")
        )
        with tempfile.TemporaryDirectory() as folder, fixed_random():
            place = StoredKeyset(f"file:{folder}/keys.json", passphrase=PASSPHRASE)
            if kdf == "scrypt":
                with without:
                    place.create(keyset(place)._document())
            else:
                place.create(keyset(place)._document())
            files[kdf] = Path(folder, "keys.json").read_text(encoding="utf-8")
    return {
        "passphrase": PASSPHRASE,
        "primary": 3,
        "states": ["destroyed", "disabled", "enabled"],
        "root": ROOT.hex(),
        "env": document.export(unsafe_cleartext=True),
        "files": files,
    }


def names():
    """A name key, tokens, and sealed names: the empty tenant, texts of several scripts, and the longest ones."""
    key = bytes(range(100, 132))
    cipher = NameCipher(key)
    places = [("", "faces"), ("acme", "faces"), ("ac", "mefaces"), ("\N{GREEK SMALL LETTER ALPHA}", "\U0001f600")]
    places.append(("t" * 255, "\N{GREEK SMALL LETTER BETA}" * 127))
    with fixed_random():
        return {
            "root": ROOT.hex(),
            "version": 3,
            "key": key.hex(),
            "sealed_key": seal_name_key(ROOT, 3, key).hex(),
            "names": [
                {"place": place, "tokens": cipher.tokens(*place), "sealed": cipher.seal(*place).hex()}
                for place in places
            ],
        }


SECRET = bytes(range(100, 132))
TENANTS = [
    TenantKey(TENANT, "2026-11-30T00:00:00+00:00", life=2, since=3, secret=SECRET),
    TenantKey("gone", "2026-11-30T00:00:00+00:00", erased="2026-11-30T01:00:00+00:00"),
    TenantKey("their own", "2026-11-30T00:00:00+00:00", wrap="vault:theirs", header={"wrapped": "eA=="}),
]


def tenants():
    """The root of a tenant with a key of its own, what is derived from it, and a keyset with such tenants."""
    root = tenant_root(ROOT, SECRET, TENANT)
    versions = {3: KeyVersion(3, KeyState.ENABLED, "2026-11-30T00:00:00+00:00", ROOT)}
    whole = Document(versions, 3, {item.name: item for item in TENANTS})
    roots = TenantRoots(Keyset(StoredKeyset("env:UNUSED"), whole), TENANT)
    return {
        "root": ROOT.hex(),
        "secret": SECRET.hex(),
        "tenant": TENANT,
        "tenant_root": root.hex(),
        "derive": {
            purpose.value: derive(root, purpose, *CONTEXT).hex() for purpose in (Purpose.CONFIG, Purpose.VECTOR)
        },
        "token": Keyring(roots, *CONTEXT).tokens(["a"])[3].tobytes().hex(),
        "env": base64.b64encode(whole.serialised()).decode(),
    }


MAKERS = {
    "labels.json": labels,
    "cells.json": cells,
    "prf.json": prf,
    "tokens.json": tokens,
    "ids.json": ids,
    "envelopes.json": envelopes,
    "half.json": half,
    "sap.json": sap,
    "sketch.json": sketch,
    "centred.json": centred,
    "keysets.json": keysets,
    "column.json": column,
    "index.json": index,
    "cache.json": cache,
    "names.json": names,
    "tenants.json": tenants,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="overwrite: the formats change, and old data with them")
    force = parser.parse_args().force
    there = [name for name in MAKERS if (FOLDER / name).exists()]
    if there and not force:
        sys.exit(f"{', '.join(there)}: there already; --force overwrites")
    for name, make in MAKERS.items():
        text = json.dumps(make(), indent=1, ensure_ascii=True)
        (FOLDER / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
