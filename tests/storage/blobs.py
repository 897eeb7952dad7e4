"""The part of the contract of `Records` that is about blobs beside the records, and vectors with a generation."""

import threading

import numpy as np
import pytest

from encvec_store.errors import CollectionNotFoundError, StoreClosedError, StoreLockedError
from encvec_store.storage.protocol import Blob, CollectionSpec
from tests.kits.records import CONFIG, DIM, SPEC, WIDTH, batch, kept


def parts(name, *contents):
    return [(name, part, Blob(1, content)) for part, content in enumerate(contents)]


class BlobsContract:
    """Has the fixtures of `RecordsContract`."""

    def test_parts_are_kept_and_counted(self, records, other):
        assert records.blobs("") == {}
        assert records.keep(iter([*parts("index.1", b"manifest"), *parts("index.1.ab", b"one", b"", b"three")]))
        assert other.keep(parts("index.10", b"x" * 300_000))
        assert records.keep()
        assert [other.blob("index.1.ab", part) for part in range(4)] == [b"one", b"", b"three", None]
        sizes = {"index.1": (1, 8), "index.1.ab": (3, 8), "index.10": (1, 300_000)}
        assert records.blobs("") == other.blobs("index.1") == sizes
        assert records.blobs("index.1.") == {"index.1.ab": (3, 8)}
        assert records.blobs("index_1") == records.blobs("%") == records.blobs("index*") == {}

    def test_many_parts_are_read_at_once(self, records, other):
        records.keep([*parts("a", *(b"%d" % part * part for part in range(40))), *parts("ab", b"other")])
        for one in (records, other):
            assert one.blob_parts("a", [7, 3, 39, 40, 3, -1]) == {7: b"7" * 7, 3: b"333", 39: b"39" * 39}
            assert one.blob_parts("a", []) == one.blob_parts("never", [0]) == {}
            assert one.blob_parts("a", range(2_000)).keys() == set(range(40))

    def test_names_go_with_all_parts_before_others_come(self, records, other):
        records.keep([*parts("a", b"one", b"two"), *parts("ab", b"three"), *parts("c", b"four")])
        assert other.keep(parts("a", b"new"), drop=["a", "c", "never"])
        assert records.blobs("") == {"a": (1, 3), "ab": (1, 5)}
        assert records.blob("a") == b"new"

    def test_a_blob_is_no_write_of_records(self, records, other):
        records.put(batch("abc"), under=CONFIG)
        seen = [one.changes(-1, 0) for one in (records, other)]
        assert records.keep(parts("a", b"one"), drop=["b"], expect={"a": None})
        for one, before in zip((records, other), seen, strict=True):
            assert one.generation() == before.generation
            assert one.changes(before.generation, before.content, stamp=before.stamp) is None
        assert (other.config(), other.check()) == (CONFIG, [])

    def test_only_what_is_expected_is_replaced(self, records, other):
        assert records.keep(parts("a", b"one", b"two"), expect={"a": None})
        untouched = iter(parts("b", b"never"))
        for expect in ({"a": None}, {"a": b"two"}, {"a": b"one", "b": b""}):
            assert not other.keep(untouched, drop=["a"], expect=expect)
        assert len(list(untouched)) == 1, "nothing is made if nothing is written"
        assert records.blobs("") == {"a": (2, 6)}
        assert other.keep(parts("a", b"three"), expect={"a": b"one", "b": None})
        assert (records.blob("a"), records.blob("a", 1)) == (b"three", b"two")
        assert records.keep(drop=["a"], expect={"a": b"three"})
        assert other.blobs("") == {}

    @pytest.mark.parametrize("first", [None, b"0"])
    def test_of_several_who_expect_the_same_one_succeeds(self, records, open_store, first):
        if first is not None:
            records.keep(parts("a", first))
        sides = [open_store().open(SPEC.tenant, SPEC.name) for _ in range(4)]
        start, answers = threading.Barrier(len(sides)), [None] * len(sides)

        def run(i):
            start.wait(5)
            answers[i] = sides[i].keep(parts("a", b"new %d" % i), expect={"a": first})

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(sides))]
        [thread.start() for thread in threads]
        [thread.join(10) for thread in threads]
        assert sorted(answers) == [False, False, False, True]
        assert records.blob("a") == b"new %d" % answers.index(True)

    def test_what_fails_while_blobs_are_made_changes_nothing(self, records, other):
        records.keep(parts("a", b"one", b"two"))
        made = []

        def blobs():
            for part in range(3):
                made.append(part)
                assert other.blobs("") == {"a": (2, 6)}, "nothing shows before the end"
                yield "b", part, Blob(1, b"x" * 100_000)
            raise KeyError("no such thing")

        with pytest.raises(KeyError):
            records.keep(blobs(), drop=["a"])
        assert made == [0, 1, 2]
        assert other.blobs("") == {"a": (2, 6)}
        assert records.keep(parts("b", b"now"))

    def test_replace_leaves_kept_blobs(self, records, other):
        records.put(batch("ab"), under=CONFIG)
        records.keep([*parts("index", b"one", b"two"), *parts("gone", b"one", b"two")])
        new = {"profile": Blob(1, b"new"), "gone": None}
        records.replace([kept(records, "a")], b"new", under=CONFIG, blobs=new)
        records.put(batch("c"), under=b"new", blobs={"index": Blob(1, b"other")})
        assert other.blobs("") == {"index": (2, 8), "profile": (1, 3)}
        assert (other.blob("index"), other.blob("index", 1)) == (b"other", b"two")

    def test_replace_drops_blobs_by_the_beginning_of_their_names(self, records, other):
        records.put(batch("a"), under=CONFIG)
        names = ["index.1", "index.1.lease", "index%", "index", "profile"]
        records.keep(blob for name in names for blob in parts(name, b"one", b"two"))
        records.replace([kept(records, "a")], CONFIG, under=CONFIG, blobs={"index.2": Blob(1, b"new")}, drop=["index."])
        assert other.blobs("") == {"index%": (2, 6), "index": (2, 6), "profile": (2, 6), "index.2": (1, 3)}

        def batches():
            yield kept(records, "a")
            raise KeyError("no such thing")

        with pytest.raises(KeyError):
            records.replace(batches(), CONFIG, under=CONFIG, drop=[""])
        assert len(other.blobs("")) == 4

    def test_replace_keeps_others_from_storing_blobs(self, records, other):
        records.put(batch("a"), under=CONFIG)

        def batches():
            for one in (other, records):
                with pytest.raises(StoreLockedError, match="nothing was written, try again"):
                    one.keep(parts("a", b"one"))
            yield kept(records, "a", seed=1)

        records.replace(batches(), CONFIG, under=CONFIG)
        assert other.blobs("") == {}

    def test_drop_takes_the_blobs(self, store, records, other):
        another = store.create(CollectionSpec("acme", "other", DIM, WIDTH), CONFIG)
        for one in (records, another):
            one.keep(parts("a", b"one", b"two"))
        store.drop(SPEC.tenant, SPEC.name)
        for one in (records, other):
            for use in (
                lambda one=one: one.keep(parts("a", b"one")),
                lambda one=one: one.keep(parts("a", b"one"), expect={"a": None}),
                lambda one=one: one.current(np.empty(0, np.int64)),
                lambda one=one: one.current(np.array([1])),
            ):
                with pytest.raises(CollectionNotFoundError):
                    use()
        assert another.blobs("") == {"a": (2, 6)}
        assert store.create(SPEC, CONFIG).blobs("") == {}

    def test_a_closed_store_keeps_nothing(self, store, records):
        store.close()
        for use in (records.keep, lambda: records.blobs(""), lambda: records.current(np.array([1]))):
            with pytest.raises(StoreClosedError):
                use()

    # vectors with a generation

    def test_vectors_with_the_generation(self, records, other):
        nothing = np.empty(0, np.int64)
        generation, found, vectors, payloads = records.current(nothing, 1_000)
        assert (generation, len(found), vectors.shape, payloads) == (other.generation(), 0, (0, WIDTH), {})
        records.put(batch(range(9)), under=CONFIG)
        rows = records.rows()
        for one in (records, other):
            for asked in (rows[::-2], np.concatenate([rows[3:], [2**62], rows[:2]]), np.array([2**62]), nothing):
                generation, found, vectors, payloads = one.current(asked)
                assert (generation, payloads) == (records.generation(), {})
                expected, envelopes = records.vectors(asked)
                assert np.array_equal(found, expected)
                assert np.array_equal(vectors, envelopes)
                assert vectors.shape == (len(found), WIDTH)

    def test_short_payloads_come_with_the_vectors(self, records, other):
        records.put(batch(range(99)), under=CONFIG)
        rows = records.rows()
        found, held = records.payloads(rows)
        assert min(map(len, held)) < 25 < max(map(len, held))
        for most in (0, 25, 50):
            short = {row: payload for row, payload in zip(found.tolist(), held, strict=True) if len(payload) <= most}
            for one in (records, other):
                asked = np.concatenate([rows[::-1], [2**62]])
                _, there, vectors, payloads = one.current(asked, most)
                assert payloads == (short if most else {})
                assert np.array_equal(there, rows[::-1])
                assert np.array_equal(vectors, records.vectors(rows[::-1])[1])

    def test_the_generation_follows_every_write(self, records, other):
        seen = [other.current(np.array([1]))[0]]
        records.put(batch("ab"), under=CONFIG)
        rows = records.rows()
        seen.append(other.current(rows)[0])
        records.remove(rows[:1])
        generation, found, *_ = other.current(rows)
        seen.append(generation)
        assert found.tolist() == rows[1:].tolist()
        records.replace([kept(records, "b", seed=1)], CONFIG, under=CONFIG)
        generation, found, vectors, _ = other.current(rows)
        seen.append(generation)
        assert np.array_equal(vectors, records.vectors(found)[1]), "those of the new tables"
        assert seen == sorted(set(seen))
        assert seen[-1] == records.generation()
