"""Data that a writer in the database altered or moved is refused, and caches and reprs hold no key."""

import copy
import pickle
import uuid

import numpy as np
import pytest
from sqlalchemy import Integer, column, event, select, type_coerce

import encvec_store as ev
from encvec_store import errors
from encvec_store.integrations.sqlalchemy import EncryptedVector
from encvec_store.sealing import Keyring
from tests.kits.orm import DIM, SAP, ask, models, opened, vectors

V = vectors(10)
PAIR = ("embedding", "embedding_sealed")


@pytest.fixture
def made():
    return models(scheme=SAP)


@pytest.fixture
def session(session, made):
    """Two rows whose keys are bound, two whose keys the server made."""
    session.add_all([model(title=str(i), embedding=V[i]) for model in (made.Item, made.Auto) for i in range(2)])
    session.commit()
    return session


def swap(session, table, columns):
    both = ", ".join(f"{name} = other.{name}" for name in columns)
    ask(session, f"UPDATE {table} SET {both} FROM {table} other WHERE other.id <> {table}.id")
    session.commit()
    session.expire_all()


def refused(session, model):
    for read in (lambda: session.scalars(select(model)).all(), lambda: session.scalars(select(model.embedding)).all()):
        with pytest.raises(errors.AuthenticationError, match="could not be authenticated"):
            read()
        session.rollback()


@pytest.mark.parametrize("columns", [PAIR[:1], PAIR[1:], PAIR], ids=["index vectors", "envelopes", "pairs"])
def test_swapped_between_rows(session, made, columns):
    swap(session, "items", columns)
    refused(session, made.Item)


@pytest.mark.parametrize("columns", [PAIR[:1], PAIR[1:]], ids=["index vectors", "envelopes"])
def test_swapped_between_rows_whose_keys_the_server_made(session, made, columns):
    swap(session, "autos", columns)
    refused(session, made.Auto)


def test_what_is_not_bound_until_the_row_is_written_again(session, made):
    """The limit that decision 0011 states: whole pairs of such rows can be exchanged. An update binds them."""
    swap(session, "autos", PAIR)
    rows = session.scalars(select(made.Auto).order_by(made.Auto.id)).all()
    np.testing.assert_array_equal(rows[0].embedding, V[1])
    rows[0].embedding, rows[1].embedding = V[2], V[3]
    session.commit()
    swap(session, "autos", PAIR)
    refused(session, made.Auto)


def test_unbound_pairs_where_identity_is_required(orm_dsn):
    loose = models(scheme=SAP)
    strict = models(loose.keyset, require_identity=True, scheme=SAP)
    with opened(orm_dsn, loose) as session:
        session.add(loose.Auto(embedding=V[0]))
        session.commit()
        with pytest.raises(errors.AuthenticationError):
            session.scalars(select(strict.Auto)).all()
        session.add(strict.Auto(embedding=V[0]))
        with pytest.raises(errors.InputError, match="primary key must be known"):
            session.flush()
        session.rollback()
        session.add(strict.Auto(id=7, embedding=V[0]))
        session.add(strict.Item(embedding=V[1]))
        session.commit()
        np.testing.assert_array_equal(session.get(strict.Auto, 7).embedding, V[0])


def test_moved_to_another_key_or_table(session, made):
    ask(session, "UPDATE items SET id = gen_random_uuid()")
    session.commit()
    refused(session, made.Item)
    ask(
        session,
        "UPDATE autos SET (embedding, embedding_sealed) = (SELECT embedding, embedding_sealed FROM items LIMIT 1)",
    )
    session.commit()
    refused(session, made.Auto)


def test_altered_envelope(session, made):
    """In the token, each field of the header, the GCM nonce, the ciphertext and the tag."""
    (sealed,) = ask(session, "SELECT embedding_sealed FROM autos WHERE title = '0'")[0]
    for at in [0, 15, 16, 17, 18, 19, 20, 23, 24, 27, 28, 44, 59, 60, 71, 72, -1]:
        altered = bytearray(sealed)
        altered[at] ^= 1
        ask(session, "UPDATE autos SET embedding_sealed = :new WHERE title = '0'", new=bytes(altered))
        session.commit()
        refused(session, made.Auto)
    ask(session, "UPDATE autos SET embedding_sealed = :old WHERE title = '0'", old=sealed)
    assert len(session.scalars(select(made.Auto)).all()) == 2


@pytest.mark.parametrize(
    "change",
    [
        "embedding_sealed = substr(embedding_sealed, 2)",
        "embedding_sealed = embedding_sealed || '\\x00'::bytea",
        "embedding_sealed = ''",
        "embedding_sealed = NULL",
        "embedding = NULL",
        "embedding = embedding + embedding",
    ],
)
def test_altered_parts(session, made, change):
    for name, model in (("autos", made.Auto), ("items", made.Item)):
        ask(session, f"UPDATE {name} SET {change}")
        session.commit()
        refused(session, model)


@pytest.mark.parametrize(
    "other",
    [
        {"keyset": ev.Keyset.create("memory:")},
        {"tenant": "other"},
        {"collection": "elsewhere"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_keys(session, made, other):
    theirs = models(**{"keyset": made.keyset, "scheme": SAP, **other})
    refused(session, theirs.Item)
    np.testing.assert_array_equal(session.scalars(select(made.Item.embedding).limit(1)).one(), V[0])


def test_a_renamed_table_is_read_under_its_old_name(orm_dsn, made):
    with opened(orm_dsn, made) as session:
        session.add(item := made.Item(embedding=V[0]))
        session.commit()
        moved = models(made.keyset, collection="items.embedding", scheme=SAP)
        np.testing.assert_array_equal(session.get(moved.Item, item.id).embedding, V[0])


def test_no_keys_of_a_collection_of_the_same_name(made):
    """A store's collection "items.embedding" of the same tenant shares no key with the column."""
    cipher = made.Item.__table__.c.embedding.type.cipher
    _, envelopes = cipher.seal(V[:1], [None])
    with pytest.raises(errors.AuthenticationError):
        Keyring(made.keyset, "", "items.embedding", b"").open_vectors(envelopes)


def test_disabled_and_destroyed_keys(session, made):
    made.keyset.rotate()
    assert len(session.scalars(select(made.Item)).all()) == 2
    session.expire_all()
    made.keyset.disable(1)
    with pytest.raises(errors.KeyUnavailableError):
        session.scalars(select(made.Item)).all()


# ------------------------------------------------------------------------------------------ caches and names


def leaves(thing, seen=None):
    """Yield every value in a cache key, however deep."""
    if isinstance(thing, tuple | list | frozenset | set):
        for part in thing:
            yield from leaves(part)
    elif isinstance(thing, dict):
        yield from leaves(list(thing.items()))
    elif hasattr(thing, "key") and isinstance(getattr(thing, "key", None), tuple):
        yield from leaves(thing.key)
    else:
        yield thing


def test_cached_statements_hold_no_key_and_no_plaintext(orm_dsn):
    made = models(scheme=SAP)
    cache = {}
    with opened(orm_dsn, made, execution_options={"compiled_cache": cache}) as session:
        session.add(made.Item(embedding=V[0]))
        session.commit()
        for query in V[:3]:
            session.scalars(select(made.Item).order_by(made.Item.embedding.cosine_distance(query))).all()
    assert sum("ORDER BY" in compiled.string for compiled in cache.values()) == 1  # cached: three queries, one entry
    root = made.keyset.root(1)
    kind = made.Item.__table__.c.embedding.type
    coerced = select(type_coerce(column("x"), kind))._generate_cache_key()
    assert any(leaf == kind.keyset for leaf in leaves(coerced.key))  # a number
    for key, compiled in [*cache.items(), (coerced.key, select(column("x")).compile())]:
        for leaf in leaves(key):
            assert not isinstance(leaf, ev.Keyset | bytes | np.ndarray), leaf
            assert "Cipher" not in type(leaf).__name__
            assert (
                not callable(leaf) or isinstance(leaf, type) or not hasattr(leaf, "__closure__") or not leaf.__closure__
            )
        for value in (compiled.params or {}).values():
            assert not isinstance(value, np.ndarray | float)
        shown = repr(key) + compiled.string + repr(compiled.params)
        assert root.hex() not in shown
        assert repr(root) not in shown


def test_cache_keys_tell_keysets_and_tenants_apart():
    keyset, other = ev.Keyset.create("memory:"), ev.Keyset.create("memory:")

    def key(given=keyset, **options):
        kind = EncryptedVector(DIM, keyset=given, collection="c", **options)
        return select(type_coerce(column("x", Integer), kind))._generate_cache_key().key

    assert key() == key()
    different = [
        key(),
        key(other),
        key(tenant="other"),
        key(scheme={"name": "sap", "beta": 1.0}),
        key(metric="l2", max_norm=1.0),
        key(metric="l2", max_norm=2.0),
        key(require_identity=True),
    ]
    assert len(set(different)) == len(different)


def test_two_tenants_on_one_engine_share_no_ciphertext(orm_dsn):
    keyset = ev.Keyset.create("memory:")
    one, two = models(keyset, tenant="one", scheme=SAP), models(keyset, tenant="two", scheme=SAP)
    sent = []
    with opened(orm_dsn, one) as session:
        event.listen(session.get_bind(), "before_cursor_execute", lambda *a: sent.append(a[3]))
        for made in (one, two):
            session.add(made.Item(id=uuid.uuid4(), title=str(made is one), embedding=V[0]))
        session.commit()
        sent.clear()
        titles = []
        for made in (one, two, one):
            mine = made.Item.title == str(made is one)
            rows = session.scalars(select(made.Item).where(mine).order_by(made.Item.embedding.cosine_distance(V[0])))
            titles += [row.title for row in rows]
    queries = [next(value for value in row.values() if value.startswith("[")) for row in sent]
    assert titles == ["True", "False", "True"]
    assert queries[0] == queries[2] != queries[1]


def test_nothing_shows_or_pickles_keys(made):
    kind = made.Item.__table__.c.embedding.type
    root = made.keyset.root(1)
    for thing in (kind, kind.cipher, made.Item.__table__, made.Item.embedding, made.Item.__table__.c.embedding):
        assert root.hex() not in repr(thing) + str(thing)
        assert repr(root)[2:-1] not in repr(thing)
    assert repr(kind) == "EncryptedVector(24, metric='cosine', collection='items.embedding')"
    assert copy.deepcopy(kind.cipher) is kind.cipher
    for thing in (kind, made.Base.metadata):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(thing)
