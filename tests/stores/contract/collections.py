"""Collections: their settings and names, tenants, dropping, closing."""

import json

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits import oracle
from tests.kits.oracle import mixed_metadata
from tests.stores.contract.opened import DIM, EVERYTHING


class CollectionContract:
    """What becomes of collections."""

    @pytest.mark.parametrize("metric", ["ip", "l2"])
    def test_max_norm(self, make, metric):
        things = make(metric=metric)
        assert things.stats()["max_norm"] is None
        things.upsert(["a", "b"], [[4.0] + [0] * (DIM - 1), [1.0] * DIM])
        things.upsert(["c"], [[5.0] + [0] * (DIM - 1)])
        if things.stats()["scheme"]["name"] == "sealed":  # nothing is lifted, so any length will do
            assert things.stats()["max_norm"] is None
            things.upsert(["d", "e"], [[1.0] * DIM, [5e9] + [0] * (DIM - 1)])
            assert things.delete(["d", "e"]) == 2
        else:
            assert things.stats()["max_norm"] == 5.0
            with pytest.raises(errors.NormError, match=r"vectors\[1\] has norm 5.1, above the collection's max_norm 5"):
                things.upsert(["d", "e"], [[1.0] * DIM, [5.1] + [0] * (DIM - 1)])
        assert things.count() == 3
        assert [hit.id for hit in things.search([9e9] * DIM, k=3)], "queries may have any length"
        assert things.search([0.0] * DIM, k=3), "and none"
        fixed = make("fixed", metric=metric, max_norm=1)
        unit = oracle.vectors(50)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        fixed.upsert(oracle.ids(50), unit)
        with pytest.raises(errors.NormError):
            fixed.upsert(["a"], [[2.0] * DIM])

    def test_creating_and_opening(self, place, store, scheme):
        with pytest.raises(
            errors.CollectionNotFoundError, match=r"no collection 'things'; give dim=\.\.\. to create it"
        ):
            store.collection("things")
        with pytest.raises(errors.CollectionNotFoundError, match="of tenant 'acme'"):
            store.collection("things", tenant="acme")
        things = store.collection("things", dim=DIM, metric="ip", scheme=scheme, fields={"a": "blind"}, max_norm=3.0)
        things.upsert(["a"], oracle.vectors(1))
        assert (things.name, things.tenant, things.dim, things.metric) == ("things", "", DIM, "ip")
        same = store.collection("things", dim=DIM, metric="ip", scheme=scheme, fields={"a": "blind"}, max_norm=3)
        assert same.count() == store.collection("things").count() == 1
        other = "sealed" if scheme != "sealed" else "sap"
        for given, part in (
            ({"dim": 9}, "dim is 8, not 9"),
            ({"metric": "l2"}, "metric is ip, not l2"),
            ({"scheme": other}, "scheme is"),
            ({"fields": {"a": "plain"}}, "fields are"),
            ({"max_norm": 4}, "max_norm is 3, not 4"),
        ):
            with pytest.raises(errors.ConfigMismatchError, match=part):
                store.collection("things", **given)
        assert place.collections(store, {""}) == [("", "things")]

    def test_bad_names(self, place, store, subtests):
        for name in ("", "x" * 256, "ü" * 128, "a\0b", 5, None, "\ud800", b"a"):
            with subtests.test(name=name):
                with pytest.raises(errors.InputError, match="collection name"):
                    store.collection(name, dim=DIM)
                if name:
                    with pytest.raises(errors.InputError, match="tenant"):
                        store.collection("things", dim=DIM, tenant=name)
                assert place.collections(store, {""}) == []

    def test_names_of_every_kind(self, place, store):
        names = [
            "a",
            "A",
            "a b",
            "..",
            ".",
            "/",
            "a/b",
            "../a",
            "\\",
            "CON",
            "a.",
            "\u00e9",
            "e\u0301",
            "\U0001f600",
            "%2e",
            "'",
        ]
        names += ["x" * 255, "ü" * 127, "\n", "*", "a:b", "-", "--", "~"]
        places = [("", name) for name in names] + [(name, "a") for name in names] + [("a", "b-c"), ("a-b", "c")]
        for i, (tenant, name) in enumerate(places):
            things = store.collection(name, dim=2, scheme="sealed" if i % 2 else "sap", tenant=tenant)
            things.upsert([f"of {i}"], [[1.0, i]])
        tenants = {tenant for tenant, _ in places}
        assert place.collections(store, tenants) == sorted(set(places))
        for i, (tenant, name) in enumerate(places):
            assert [r.id for r in store.collection(name, tenant=tenant).scroll()] == [f"of {i}"]
        assert store.collections("a") == sorted(("a", name) for tenant, name in places if tenant == "a")
        store = place.reopen(store)
        assert place.collections(store, tenants) == sorted(set(places))
        assert store.collection("../a").count() == 1
        store.close()

    def test_tenants_see_nothing_of_each_other(self, place, store, scheme):
        a = store.collection("things", dim=DIM, scheme=scheme, tenant="a")
        b = store.collection("things", dim=DIM, scheme=scheme, tenant="b")
        nobody = store.collection("things", dim=DIM, scheme=scheme)
        stored = oracle.vectors(3)
        a.upsert(["x", "y"], stored[:2], [{"of": "a"}] * 2)
        b.upsert(["x"], stored[:1], [{"of": "b"}])
        assert (a.count(), b.count(), nobody.count()) == (2, 1, 0)
        assert b.get(["x", "y"])[0].metadata == {"of": "b"}
        assert [hit.metadata for hit in b.search(stored[0])] == [{"of": "b"}]
        assert nobody.search(stored[0]) == []
        assert b.delete(["x", "y"]) == 1
        assert a.count() == 2
        if a.index_vectors(["x"]).size:
            b.upsert(["x"], stored[:1])
            assert not np.allclose(a.index_vectors(["x"]), b.index_vectors(["x"]), atol=0.1), "keys of their own"
        assert store.drop("things", tenant="a")
        assert place.collections(store, {"", "a", "b"}) == [("", "things"), ("b", "things")]

    def test_dropping_a_tenant(self, place, store, scheme):
        for tenant in ("", "a", "b"):
            for name in ("x", "y", "z"):
                store.collection(name, dim=DIM, scheme=scheme, tenant=tenant).upsert(["r"], oracle.vectors(1))
        assert store.drop_tenant("a") == 3
        assert store.drop_tenant("a") == store.drop_tenant("nobody") == 0
        left = [(tenant, name) for tenant in ("", "b") for name in ("x", "y", "z")]
        assert place.collections(store, {"", "a", "b"}) == left
        assert store.collection("x", tenant="b").get(["r"])[0].id == "r"
        with pytest.raises(errors.InputError, match="tenant must be a string"):
            store.drop_tenant(None)

    def test_drop(self, place, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(oracle.ids(5), oracle.vectors(5), [{"a": 1}] * 5)
        assert store.drop("things") is True
        assert store.drop("things") is False
        assert place.collections(store, {""}) == []
        with pytest.raises(errors.CollectionNotFoundError):
            store.collection("things")
        again = store.collection("things", dim=3, metric="l2", scheme="sap")
        assert again.count() == 0
        again.upsert(["a"], np.ones((1, 3)))
        assert again.search(np.ones(3))[0].score == 0
        store = place.reopen(store)
        assert store.collection("things").count() == 1
        store.close()

    def test_reopening(self, place, store, make, scheme):
        names, stored = oracle.ids(60), oracle.vectors(60)
        things = make(fields={"n": "plain", "word": "blind", "*": "sealed"}, metric="l2")
        things.upsert(names, stored, mixed_metadata(60), [f"text {i}" for i in range(60)])
        things.delete(names[:5])
        things.flush()
        things.upsert(names[5:10], stored[:5], None, None)
        before = things.search(np.ones((4, DIM)), k=60)
        index = things.index_vectors(names[5:])
        store = place.reopen(store)
        things = store.collection("things", oversample=EVERYTHING)
        assert things.count() == 55
        assert things.search(np.ones((4, DIM)), k=60) == before
        np.testing.assert_array_equal(things.index_vectors(names[5:]), index)
        assert things.count({"word": "red"}) == len([h for h in before[0] if h.metadata.get("word") == "red"])
        assert things.verify().ok
        things.upsert(["new"], oracle.vectors(1, seed=9))
        assert things.count() == 56
        store.close()

    def test_stats(self, make, scheme):
        things = make(fields={"a": "blind"})
        things.upsert(oracle.ids(20), oracle.vectors(20), [{"a": i} for i in range(20)])
        stats = things.stats()
        assert json.loads(json.dumps(stats)) == stats
        assert (stats["name"], stats["tenant"], stats["count"], stats["dim"]) == ("things", "", 20, DIM)
        assert stats["scheme"]["name"] == (scheme["name"] if isinstance(scheme, dict) else scheme)
        assert stats["fields"] == {"a": "blind"}
        assert (stats["key_versions"], stats["primary"]) == ({"1": 20}, 1)
        assert stats["leakage"]
        assert {"index", "bytes"} <= stats["store"].keys()
        assert "things" in repr(things)

    def test_closed(self, place, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(["a"], oracle.vectors(1))
        store.close()
        store.close()
        for call in (store.collections, lambda: store.collection("things"), lambda: store.drop("things")):
            with pytest.raises(errors.StoreClosedError, match="closed"):
                call()

    def test_collections_of_a_closed_store(self, store, scheme):
        things = store.collection("things", dim=DIM, scheme=scheme)
        things.upsert(["a"], oracle.vectors(1))
        store.close()
        for call in (
            things.count,
            lambda: things.get(["a"]),
            lambda: things.search(np.ones(DIM)),
            lambda: things.upsert(["b"], oracle.vectors(1)),
            lambda: things.delete(["a"]),
            lambda: list(things.scroll()),
        ):
            with pytest.raises(errors.StoreClosedError, match="closed"):
                call()

    def test_with_statement(self, place, scheme):
        with place.connect() as store:
            store.collection("things", dim=DIM, scheme=scheme)
        with pytest.raises(errors.StoreClosedError):
            store.collections()

    def test_no_keyset_no_store(self, store):
        with pytest.raises(errors.InputError, match="keyset must be a Keyset, got str"):
            ev.connect(store.url, keyset="memory:")
        with pytest.raises(errors.UriError, match="a store URL must begin with one of memory:, faiss:"):
            ev.connect("nowhere:", keyset=store.keyset)
