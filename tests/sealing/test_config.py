"""A collection's settings: what is refused, what counts as other settings, and the way through JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from encvec_store.data import Policy, Precision
from encvec_store.errors import (
    AuthenticationError,
    ConfigMismatchError,
    InputError,
    MetricError,
    SchemeError,
    ShapeError,
)
from encvec_store.schemes import Sketch
from encvec_store.sealing.config import CollectionConfig

NOTHING = {"metric_name": None, "scheme_spec": None, "fields": None, "max_norm": None, "oversample": None}


def build(dim=4, **given):
    return CollectionConfig.build(dim=dim, **{**NOTHING, **given})


def test_numpy_scalars_are_numbers():
    """Of every type, in every argument; and the settings are Python's own again, as JSON has no others."""
    scheme = {"name": "sap", "beta": np.float32(1.5), "query_beta": np.int64(1), "cells": np.int16(2)}
    config = build(
        np.int64(8), metric_name=np.str_("l2"), scheme_spec=scheme, max_norm=np.float32(2), oversample=np.uint8(7)
    )
    assert config == replace(
        build(8, metric_name="l2", scheme_spec={**scheme, "beta": 1.5}, max_norm=2, oversample=7),
        incarnation=config.incarnation,
    )
    assert CollectionConfig.from_json(config.to_json(), config.incarnation) == config
    sketch = build(np.int32(8), scheme_spec={"name": np.str_("sketch"), "k": np.int64(4), "gamma": np.float64(0.25)})
    assert CollectionConfig.from_json(sketch.to_json(), sketch.incarnation) == sketch
    assert check(config, np.int8(8), max_norm=np.float64(2), oversample=np.int64(9)).oversample == 9


def check(config, dim=None, **given):
    return config.check_same(dim=dim, **{**NOTHING, **given})


def test_defaults():
    config = build()
    assert (config.dim, config.metric.name, config.scheme.name, config.policies) == (4, "cosine", "sealed", None)
    assert (config.max_norm, config.oversample, config.revision, config.calibration) == (None, 10, 1, None)
    assert (config.point_dim, config.index_dim, config.fitted, config.profile) == (4, 0, None, None)
    sap = build(scheme_spec="sap")
    assert (sap.point_dim, sap.index_dim) == (4, 4)
    assert [build(metric_name=name, scheme_spec="sap").index_dim for name in ("ip", "l2")] == [5, 6]
    assert build(metric_name="l2", scheme_spec="sealed").index_dim == 0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dim": 0}, ShapeError, "dim must be an integer from 1 to 16000, got 0"),
        ({"dim": -1}, ShapeError, "got -1"),
        ({"dim": 16_001}, ShapeError, "got 16001"),
        ({"dim": 2.0}, ShapeError, "got 2.0"),
        ({"dim": True}, ShapeError, "got True"),
        ({"dim": "4"}, ShapeError, "got '4'"),
        ({"metric_name": "dot"}, MetricError, "metric must be one of cosine, l2, ip, got 'dot'"),
        ({"scheme_spec": "aes"}, SchemeError, "scheme must be one of sap, sealed, sketch, got 'aes'"),
        ({"scheme_spec": {"beta": 1}}, SchemeError, "scheme must be one of sap, sealed, sketch, got None"),
        ({"scheme_spec": {"name": "sap", "gamma": 1}}, SchemeError, "does not take 'gamma'"),
        ({"scheme_spec": {"name": "sealed", "beta": 1}}, SchemeError, "does not take 'beta'"),
        ({"scheme_spec": {"name": "sap", "beta": -1}}, SchemeError, "beta must be a number from 0 to 16, got -1"),
        ({"scheme_spec": {"name": "sap", "beta": float("nan")}}, SchemeError, "beta must be a number"),
        ({"scheme_spec": {"name": "sap", "query_beta": 17}}, SchemeError, "query_beta must be a number"),
        ({"scheme_spec": {"name": "sap", "beta": True}}, SchemeError, "beta must be a number"),
        ({"scheme_spec": 5}, SchemeError, "scheme must be a name"),
        ({"scheme_spec": {"name": "sketch", "k": 5}}, SchemeError, "k must be at most 4 here, got 5"),
        ({"scheme_spec": {"name": "sketch", "k": 1}}, SchemeError, "k must be an integer >= 2, got 1"),
        ({"scheme_spec": {"name": "sketch", "k": True}}, SchemeError, "k must be an integer"),
        (
            {"scheme_spec": {"name": "sketch", "gamma": 0.6}},
            SchemeError,
            "gamma must be a number from -0.5 to 0.5, got 0.6",
        ),
        ({"scheme_spec": {"name": "sketch", "beta": -1}}, SchemeError, "beta must be a number from 0 to 16, got -1"),
        ({"scheme_spec": {"name": "sketch", "threat": "nobody"}}, SchemeError, "threat must be one of stolen-data"),
        (
            {"scheme_spec": {"name": "sketch", "k": 2, "beta": 1, "profile": "00"}},
            SchemeError,
            "profile must not be given: the collection fits it",
        ),
        ({"scheme_spec": {"name": "sketch", "profile": "00"}}, SchemeError, "profile must not be given"),
        ({"fields": {"a": "open"}}, InputError, "field 'a': policy must be one of sealed, blind, plain, got 'open'"),
        ({"fields": ["a"]}, InputError, "fields must be a mapping"),
        ({"max_norm": 1.0}, InputError, "max_norm has no meaning under cosine"),
        ({"metric_name": "ip", "max_norm": 0}, InputError, "max_norm must be a number > 0 and < 1e30, got 0"),
        ({"metric_name": "ip", "max_norm": -1.0}, InputError, "must be a number > 0"),
        ({"metric_name": "l2", "max_norm": float("nan")}, InputError, "must be a number > 0"),
        ({"metric_name": "l2", "max_norm": float("inf")}, InputError, "must be a number > 0"),
        ({"metric_name": "l2", "max_norm": "1"}, InputError, "must be a number > 0"),
        ({"metric_name": "l2", "max_norm": True}, InputError, "must be a number > 0"),
        ({"oversample": 0}, InputError, "oversample must be an integer from 1 to 10000, got 0"),
        ({"oversample": 1.5}, InputError, "oversample must be an integer"),
        ({"oversample": True}, InputError, "oversample must be an integer"),
        ({"precision_name": "double"}, InputError, "precision must be one of single, half, got 'double'"),
    ],
)
def test_what_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        build(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dim": 5}, "dim is 4, not 5"),
        ({"metric_name": "cosine"}, "metric is ip, not cosine"),
        ({"scheme_spec": "sealed"}, r"scheme is sap\(beta=2.5, query_beta=0\), not sealed\(\)"),
        ({"scheme_spec": {"name": "sap"}}, r"scheme is sap\(beta=2.5, query_beta=0\), not sap\(beta=2, query_beta=0\)"),
        ({"fields": {}}, "fields are {'a': 'blind'}, not {}"),
        ({"fields": {"a": "plain"}}, "fields are {'a': 'blind'}, not {'a': 'plain'}"),
        ({"max_norm": 3}, "max_norm is 2, not 3"),
        ({"precision_name": "half"}, "precision is single, not half"),
        ({"dim": 5, "max_norm": 3.5}, "with other settings: dim is 4, not 5; max_norm is 2, not 3.5"),
    ],
)
def test_other_settings(given, message):
    config = build(metric_name="ip", scheme_spec={"name": "sap", "beta": 2.5}, fields={"a": "blind"}, max_norm=2)
    with pytest.raises(ConfigMismatchError, match=message):
        check(config, **given)


def test_same_settings():
    given = {"metric_name": "ip", "scheme_spec": {"name": "sap", "beta": 2.5}, "fields": {"a": "blind"}, "max_norm": 2}
    config = build(**given)
    assert check(config) == config
    assert check(config, dim=4, **given) == config
    assert check(config, scheme_spec="sap") == config, "a bare name means: whatever calibration chose"
    assert check(config, scheme_spec=config.scheme) == config
    assert check(config, fields={"a": Policy.BLIND}) == config
    assert check(config, oversample=7) == replace(config, oversample=7)


@pytest.mark.parametrize(
    ("config", "given", "error"),
    [
        (build(), {"metric_name": "dot"}, MetricError),
        (build(), {"scheme_spec": "aes"}, SchemeError),
        (build(), {"fields": {"a": "open"}}, InputError),
        (build(), {"oversample": 0}, InputError),
        (build(), {"max_norm": 1.0}, InputError),
        (build(metric_name="ip"), {"max_norm": "1"}, InputError),
        (build(metric_name="ip", max_norm=1), {"max_norm": "1"}, InputError),
        (build(metric_name="ip", max_norm=1), {"max_norm": -1}, InputError),
    ],
)
def test_nonsense_is_no_mismatch(config, given, error):
    """Opening refuses what creating refuses, with the same error."""
    with pytest.raises(error) as caught:
        check(config, **given)
    assert type(caught.value) is error


def test_a_max_norm_that_is_not_set_yet():
    """Asking for one that the collection was not created with must not pass in silence."""
    with pytest.raises(ConfigMismatchError, match="max_norm is set by the first write, not 3"):
        check(build(metric_name="ip"), max_norm=3)


def test_first_batch_sets_the_bound_with_room():
    assert build(metric_name="l2").bounded_by(8.0).max_norm == 10.0
    assert build(metric_name="l2").bounded_by(0.0).max_norm == 1.0


@pytest.mark.parametrize(
    "config",
    [
        build(),
        build(16_000, metric_name="ip", scheme_spec="sealed", fields={}, max_norm=1e-29, oversample=1),
        build(
            metric_name="l2",
            scheme_spec={"name": "sap", "beta": 0.1, "query_beta": 3},
            fields={"é": "plain", "*": "sealed"},
        ),
        build(precision_name="half"),
        build(16, scheme_spec={"name": "sketch", "threat": "watching-server"}),
        replace(
            build(16, scheme_spec={"name": "sketch", "k": 8, "beta": 1.8}),
            scheme=Sketch(k=8, beta=1.8, gamma=0.0, query_beta=0.0, profile="ab" * 32),
            fitted={"at": "2026-11-23T00:00:00+00:00", "records": 5000, "chosen": ["k"]},
        ),
        replace(build(), revision=7, calibration={"beta": 1.5, "frontier": [{"recall": 0.1}]}),
    ],
)
def test_through_json(config):
    document = config.to_json()
    assert CollectionConfig.from_json(document, config.incarnation) == config
    assert CollectionConfig.from_json(document, config.incarnation).to_json() == document


def test_another_format_is_refused():
    document = json.loads(build().to_json())
    document["format"] = 3
    with pytest.raises(AuthenticationError, match="need a newer version of encvec_store: format 3"):
        CollectionConfig.from_json(json.dumps(document).encode(), bytes(16))


def test_what_later_versions_add():
    """What need not be understood is kept as it is; what must be is refused by its name."""
    document = json.loads(build().to_json())
    document["colour"] = {"of": "the index"}
    config = CollectionConfig.from_json(json.dumps(document).encode(), bytes(16))
    assert json.loads(config.changed(oversample=3).to_json())["colour"] == {"of": "the index"}
    document["needs"] = ["wings", "gills"]
    with pytest.raises(AuthenticationError, match="need a newer version of encvec_store: gills, wings"):
        CollectionConfig.from_json(json.dumps(document).encode(), bytes(16))


def test_precision_is_a_setting():
    assert check(build(precision_name="half"), precision_name="half").precision is Precision.HALF
    assert check(build(precision_name="half")).precision is Precision.HALF
    kept = CollectionConfig.from_json(build(precision_name="half").to_json(), bytes(16))
    assert kept.precision is Precision.HALF


def test_every_collection_has_an_incarnation_of_its_own():
    assert len({build().incarnation for _ in range(10)}) == 10
    assert len(build().incarnation) == 16
    assert build().incarnation.hex() not in repr(build())


def test_revisions_only_grow():
    config = build(metric_name="l2", scheme_spec="sap")
    assert (config.revision, config.rewritten) == (1, 1)
    bounded = config.bounded_by(8.0)
    assert (bounded.revision, bounded.rewritten) == (2, 1)
    rewritten = bounded.changed(rewritten=2, oversample=3)
    assert (rewritten.revision, rewritten.rewritten, rewritten.rewritten_key, rewritten.oversample) == (3, 3, 2, 3)
    assert [bounded.covers(least, largest) for least, largest in ((1, 1), (1, 2), (2, 2), (2, 3))] == [
        True, True, True, False,
    ]  # fmt: skip
    assert not rewritten.covers(2, 3)


def test_settings_that_were_put_back_are_refused():
    config = build(scheme_spec="sap", fields={"a": "blind"})
    newer = config.changed(oversample=3)
    config.check_follows(config)
    newer.check_follows(config)
    newer.check_follows(newer)
    with pytest.raises(AuthenticationError, match="of revision 1, and revision 2 was seen: older ones were put back"):
        config.check_follows(newer)
    with pytest.raises(AuthenticationError, match="older ones were put back"):
        replace(newer, oversample=4).check_follows(newer)
    later = newer.changed()
    for other in (
        replace(later, incarnation=bytes(16)),
        replace(later, dim=5),
        replace(later, metric=build(metric_name="l2").metric),
        replace(later, policies={"a": Policy.PLAIN}),
        replace(later, precision=Precision.HALF),
    ):
        with pytest.raises(AuthenticationError, match="those of another collection"):
            other.check_follows(newer)


def test_beta_two_is_beta_two():
    """2, 2.0 and numpy's 2.0 name the same scheme, so the same keys."""
    schemes = [build(scheme_spec={"name": "sap", "beta": beta}).scheme for beta in (2, 2.0, np.float64(2))]
    assert len({repr(scheme) for scheme in schemes}) == 1


def test_what_is_left_open_is_no_mismatch():
    """A sketch chooses k and beta itself, and its profile: later openings need not know them."""
    sketch = Sketch(k=8, beta=1.8, profile="ab" * 32)
    config = replace(build(16), scheme=sketch)
    for spec in ("sketch", {"name": "sketch"}, {"name": "sketch", "k": 8}, {"name": "sketch", "beta": 1.8}, sketch):
        assert check(config, scheme_spec=spec) == config
    for spec, message in (
        ({"name": "sketch", "k": 9}, r"sketch\(k=8, beta=1.8, gamma=0, query_beta=0\), not sketch\(k=9, gamma=0"),
        ({"name": "sketch", "threat": "watching-server"}, r"not sketch\(gamma=-0.5, query_beta=1.8\)"),
        ({"name": "sap"}, "not sap"),
    ):
        with pytest.raises(ConfigMismatchError, match=message):
            check(config, scheme_spec=spec)
