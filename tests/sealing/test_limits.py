"""The coarse count of encryptions is right on average, grows only, and refuses what is above the limit."""

import logging

import pytest

from encvec_store.errors import KeyExhaustedError
from encvec_store.sealing import limits
from encvec_store.sealing.config import CollectionConfig

MOST = limits.MOST
WARN = MOST // 2
BASE = CollectionConfig.build(
    dim=2, metric_name=None, scheme_spec="sealed", fields=None, max_norm=None, oversample=None
)


def after(config, n, version=1):
    return limits.counted(config, version, n, "collection 'things'")


def at(count):
    return BASE.changed(encrypted={"1": count})


@pytest.mark.parametrize("size", [1, 7, 64, 100])
def test_it_is_right_on_average(monkeypatch, size):
    monkeypatch.setattr(limits, "STEP", 64)
    config, n = BASE, 64 * 400
    for _ in range(n // size):
        config = after(config, size)
    assert abs(config.encrypted["1"] - n) < 6 * 64 * 400**0.5, "six standard deviations"
    assert config.encrypted["1"] % 64 == 0


def test_most_writes_change_no_settings(monkeypatch):
    monkeypatch.setattr(limits.secrets, "randbelow", lambda n: n - 1)
    assert after(BASE, limits.STEP - 1) is BASE
    fresh = after(BASE, limits.STEP)
    assert (fresh.encrypted, fresh.revision) == ({"1": limits.STEP}, BASE.revision + 1)
    assert CollectionConfig.from_json(fresh.to_json(), BASE.incarnation) == fresh
    assert after(fresh, limits.STEP, version=2).encrypted == {"1": limits.STEP, "2": limits.STEP}


@pytest.mark.parametrize(
    ("before", "n", "fits"),
    [(MOST - 1, 1, True), (MOST - 1, 2, False), (MOST, 1, False), (0, MOST, True), (0, MOST + 1, False)],
)
def test_the_limit(monkeypatch, before, n, fits):
    monkeypatch.setattr(limits.secrets, "randbelow", lambda n: n - 1)
    if fits:
        after(at(before), n)
    else:
        with pytest.raises(KeyExhaustedError, match=r"may encrypt 4,294,967,296: call keyset.rotate\(\)"):
            after(at(before), n)


def test_it_warns_from_the_middle_on_at_each_step(monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "encvec_store")
    monkeypatch.setattr(limits.secrets, "randbelow", lambda n: n - 1)
    after(at(WARN - limits.STEP), limits.STEP)
    after(at(WARN), limits.STEP - 1)
    assert not caplog.records
    after(at(WARN), limits.STEP)
    assert "has encrypted 2148532224 of at most 4294967296 records: rotate the keyset soon" in caplog.text
