"""PMAC and AES-CTR: published vectors, a slow reference written apart, and what a PRF must look like."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.crypto import prf
from encvec_store.crypto.prf import Keystream, Pmac, batches
from tests.kits.stats import ks, normal_cdf

KEY = bytes(range(32))
PUBLISHED = {  # Rogaway's AES-128 vectors: key and messages count up from 0
    0: "4399572CD6EA5341B8D35876A7098AF7",
    3: "256BA5193C1B991B4DF0C51F388A9E27",
    16: "EBBD822FA458DAF6DFDAD7C27DA76338",
    20: "0412CA150BBF79058D8C75A58C993F55",
    32: "E97AC04E9E5E3399CE5355CD7407BC75",
    34: "5CBA7D5EB24F7C86CCC54604E53D5512",
}


class Aes128(prf._Aes):
    def __init__(self, key):
        self._cipher = Cipher(algorithms.AES128(key), modes.ECB())  # noqa: S305 - the raw permutation


@pytest.mark.parametrize("length", PUBLISHED)
def test_pmac_published_vectors(monkeypatch, length):
    monkeypatch.setattr(prf, "_Aes", Aes128)
    tag = Pmac(bytes(range(16))).tags_of([bytes(range(length))])
    assert tag.tobytes().hex().upper() == PUBLISHED[length]


def slow_pmac(key, message):
    """PMAC as its paper puts it, with integers of Python, one block at a time."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the raw permutation

    def aes(block):
        return int.from_bytes(encryptor.update(block.to_bytes(16, "big")), "big")

    def times_x(block):
        return (block << 1) % (1 << 128) ^ (0x87 if block >> 127 else 0)

    def ntz(i):
        return 0 if i & 1 else 1 + ntz(i >> 1)

    blocks = [message[i : i + 16] for i in range(0, len(message), 16)] or [b""]
    multiples = [aes(0)]
    offset = total = 0
    for i, block in enumerate(blocks[:-1], 1):
        while len(multiples) <= ntz(i):
            multiples.append(times_x(multiples[-1]))
        offset ^= multiples[ntz(i)]
        total ^= aes(int.from_bytes(block, "big") ^ offset)
    if len(blocks[-1]) == 16:
        half = multiples[0] >> 1 ^ (0x80000000000000000000000000000043 if multiples[0] & 1 else 0)
        total ^= int.from_bytes(blocks[-1], "big") ^ half
    else:
        total ^= int.from_bytes(blocks[-1] + b"\x80" + bytes(15 - len(blocks[-1])), "big")
    return aes(total).to_bytes(16, "big")


@given(key=st.binary(min_size=32, max_size=32), messages=st.lists(st.binary(max_size=200), min_size=1, max_size=6))
def test_pmac_is_the_slow_one(key, messages):
    tags = Pmac(key).tags_of(messages)
    assert [tag.tobytes() for tag in tags] == [slow_pmac(key, message) for message in messages]


@pytest.mark.parametrize("length", [1024, 1552, 1556, 65_536 + 7])
def test_pmac_of_long_messages(length):
    """Many Gray-code offsets, and rows that are longer than a batch of the cache's size."""
    message = np.random.default_rng(length).bytes(length)
    assert Pmac(KEY).tags_of([message]).tobytes() == slow_pmac(KEY, message)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 48, 100])
@pytest.mark.parametrize("size", [1, 64, 1 << 18])
def test_batch_is_one_by_one(monkeypatch, length, size):
    monkeypatch.setattr(prf, "_BATCH_BYTES", size)
    messages = np.random.default_rng(3).integers(0, 256, (37, length), np.uint8)
    pmac = Pmac(KEY)
    assert [tag.tobytes() for tag in pmac.tags(messages)] == [slow_pmac(KEY, row.tobytes()) for row in messages]


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_tags_of_keeps_the_order(messages):
    pmac = Pmac(KEY)
    tags = pmac.tags_of(messages)
    assert tags.shape == (len(messages), 16)
    assert all((tag == pmac.tags_of([message])[0]).all() for tag, message in zip(tags, messages, strict=True))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_pieces_read_side_by_side(left, right, n):
    rows = np.random.default_rng(left).integers(0, 256, (n, left + right), np.uint8)
    assert (Pmac(KEY).tags(rows[:, :left], rows[:, left:]) == Pmac(KEY).tags(rows)).all()


def test_tags_leave_the_message_alone():
    rows = np.random.default_rng(1).integers(0, 256, (5, 64), np.uint8)
    before = rows.copy()
    Pmac(KEY).tags(rows)
    assert (rows == before).all()


def test_avalanche():
    """Any one bit flipped flips half of the tag's, 64 of 128."""
    message = np.random.default_rng(5).integers(0, 256, 52, np.uint8)
    flipped = np.repeat(message[None], 52 * 8, axis=0)
    flipped[np.arange(52 * 8), np.arange(52 * 8) // 8] ^= (1 << (np.arange(52 * 8) % 8)).astype(np.uint8)
    pmac = Pmac(KEY)
    changed = np.unpackbits(pmac.tags(flipped) ^ pmac.tags(message[None]), axis=1).sum(axis=1)
    assert abs(changed.mean() - 64) < 1
    assert 34 < changed.min() <= changed.max() < 94


def test_no_nonce_repeats():
    counting = np.arange(100_000, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    tags = Pmac(KEY).tags(np.pad(counting, ((0, 0), (0, 40))))
    assert len(np.unique(tags.view("V16"))) == 100_000


def ctr(nonce, size):
    return Cipher(algorithms.AES256(KEY), modes.CTR(nonce)).encryptor().update(bytes(size))


@given(
    nonces=st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1000)), min_size=1, max_size=5),
    words=st.integers(1, 800),
)
def test_keystream_is_aes_ctr(nonces, words):
    packed = [high + low.to_bytes(8, "big") for high, low in nonces]
    stream = Keystream(KEY).words(np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16), words)
    assert stream.shape == (len(nonces), words)
    assert [row.tobytes() for row in stream] == [ctr(nonce, 4 * words) for nonce in packed]


def test_keystream_counter_wraps_in_its_half():
    """The high half is the record's own: the counter never carries into it."""
    nonce = bytes(7) + b"\x05" + b"\xff" * 8
    stream = Keystream(KEY).words(np.frombuffer(nonce, np.uint8).reshape(1, 16), 12).tobytes()
    assert stream == ctr(nonce, 16) + ctr(nonce[:8] + bytes(8), 32)


@pytest.mark.parametrize("size", [1, 100, 1 << 18])
def test_keystream_batch_is_one_by_one(monkeypatch, size):
    monkeypatch.setattr(prf, "_BATCH_BYTES", size)
    nonces = np.random.default_rng(2).integers(0, 256, (23, 16), np.uint8)
    stream = Keystream(KEY)
    together = stream.words(nonces, 13)
    assert all((together[i] == stream.words(nonces[i : i + 1], 13)[0]).all() for i in range(23))


@given(st.integers(0, 10_000), st.integers(0, 1 << 20))
def test_batches_cover_all_rows_once(n, row_bytes):
    size, parts = batches(n, row_bytes)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    assert all(0 < part.stop - part.start <= size for part in parts)


def test_gaussians_are_standard_normal():
    values = Keystream(KEY).gaussians(100_001, stream=7)
    assert values.shape == (100_001,)
    assert values.dtype == np.float64
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        assert abs((values**power).mean() - moment) < 4 * np.std(values**power) / np.sqrt(len(values))
    assert ks(normal_cdf(values)) < 1.95
    half = len(values) // 2
    assert abs(np.corrcoef(values[:half], values[half + 1 :])[0, 1]) < 4 / np.sqrt(half)  # cos against sin
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4 / np.sqrt(2 * half)


def test_gaussian_streams_are_unrelated():
    stream = Keystream(KEY)
    one, two = stream.gaussians(20_000, stream=0), stream.gaussians(20_000, stream=1)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(20_000)
    assert abs(np.corrcoef(one, Keystream(bytes(32)).gaussians(20_000))[0, 1]) < 4 / np.sqrt(20_000)


def test_permutations_are_uniform():
    stream = Keystream(KEY)
    drawn = [tuple(stream.permutation(4, stream=i).tolist()) for i in range(4800)]
    counts = np.array([drawn.count(order) for order in sorted(set(drawn))])
    assert len(counts) == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # chi squared, 23 degrees: p = .001


def test_keys_must_have_256_bits():
    for maker in (Pmac, Keystream):
        with pytest.raises(ValueError, match="key size"):
            maker(bytes(16))
