"""The contract of what `Records` tell those who follow them: changes and generations; a part of `RecordsContract`."""

import numpy as np

from tests.kits.records import CONFIG, DIM, Follower, batch, by_partition, kept, tokens


class ChangesContract:
    """Uses the fixtures of `RecordsContract`."""

    def test_changes_say_what_was_written_since(self, records, other):
        records.put(batch(range(10)), under=CONFIG)
        one = Follower()
        first = one.follow(other)
        assert first.whole
        assert first.index_dim == DIM
        assert one.follow(other) is None
        old = records.rows()
        records.put(batch(range(8, 12), partition=2), under=CONFIG)
        records.remove(records.find(tokens([0, 11])))
        records.put(batch([1], seed=1, retired=[2]), under=CONFIG)
        told = one.copy().follow(other)
        assert not told.whole
        expected = [set(records.find(tokens(names)).tolist()) for names in ([1], [8, 9, 10])]
        assert {partition: set(rows.tolist()) for partition, rows in told.added.items()} == {
            1: expected[0],
            2: expected[1],
        }
        assert set(told.removed.tolist()) == set(old.tolist()) - set(records.rows().tolist())
        assert told.generation == records.generation() == other.generation()
        one.follow(other)
        assert one.partitions == by_partition(records)

    def test_followers_of_every_age_agree(self, records, other):
        """After each write, with and without tidying up."""
        followers = [Follower()]
        for turn in range(12):
            names = range(turn * 3, turn * 5 + 6)
            records.put(batch(names, seed=turn, partition=turn % 3), under=CONFIG, more=[batch(names[::2], seed=99)])
            records.remove(records.find(tokens(range(turn * 4, turn * 4 + 3))))
            if turn == 5:
                there = [n for n in range(80) if records.find(tokens([n])).any()]
                records.replace([kept(records, there[::2], partition=1)], CONFIG, under=CONFIG)
            if turn % 4 == 3:
                records.flush()
            for follower in [one.copy() for one in followers]:
                follower.follow(other)
                assert follower.partitions == by_partition(records)
            followers.append(followers[turn // 3].copy())
            followers[-1].follow(records)

    def test_another_content_is_listed_whole(self, records, other):
        records.put(batch("abc"), under=CONFIG)
        one = Follower()
        one.follow(records)
        assert records.changes(one.generation, one.content + 1).whole
        records.replace([kept(records, "abc", seed=1)], CONFIG, under=CONFIG, index_dim=DIM)
        before = one.content
        told = one.follow(other)
        assert told.whole
        assert told.content != before
        assert one.partitions == by_partition(records)
        assert one.follow(other) is None

    def test_a_stamp_tells_histories_apart(self, records):
        records.put(batch("abc"), under=CONFIG)
        one = Follower()
        one.follow(records)
        assert one.follow(records, stamp=one.stamp) is None
        records.put(batch("d"), under=CONFIG)
        one.follow(records, stamp=one.stamp)
        assert one.partitions == by_partition(records)

    def test_no_row_is_beyond_the_next_one(self, records):
        records.put(batch("abc"), under=CONFIG)
        assert records.changes(-1, 0).next_row > records.rows().max()

    def test_generation_grows_with_every_write(self, records, other):
        seen = [records.generation()]
        for write in (
            lambda: records.put(batch("ab"), under=CONFIG),
            lambda: records.put(batch([]), under=CONFIG, config=CONFIG),
            lambda: records.remove(records.rows()[:1]),
            lambda: records.replace([kept(records, "b")], CONFIG, under=CONFIG),
            lambda: records.replace([], CONFIG, under=CONFIG),
        ):
            write()
            seen.append(records.generation())
            assert other.generation() == seen[-1]
        assert seen == sorted(set(seen))
        records.remove(np.array([2**62]))
        records.flush()
        assert records.generation() == seen[-1]
