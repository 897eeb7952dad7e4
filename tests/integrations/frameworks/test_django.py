"""Django: the field over PostgreSQL and SQLite, with searches beside numpy's answers."""

import contextlib
import itertools
import tempfile
import uuid
from pathlib import Path

import django
import numpy as np
import pytest
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

import encvec_store as ev

FOLDER = tempfile.TemporaryDirectory()
settings.configure(
    INSTALLED_APPS=["tests.integrations.frameworks.shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(FOLDER.name) / "db.sqlite3"}},
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ENCVEC_KEYSET="tests.integrations.frameworks.shop.models.KEYS",
)
django.setup()

from django.core import checks, serializers  # noqa: E402
from django.core.exceptions import FieldError, ImproperlyConfigured, ValidationError  # noqa: E402
from django.db import connections, migrations, models, transaction  # noqa: E402
from django.db.migrations.state import ProjectState  # noqa: E402
from django.db.migrations.writer import MigrationWriter  # noqa: E402

from encvec_store.integrations.django import (  # noqa: E402
    EncryptedVectorField,
    anearest,
    ciphertext,
    nearest,
    reencrypt,
    seal,
    searching,
)
from tests.integrations.frameworks.shop.models import DIM, KEYS, Cover, Item, Keyless, Page, Word  # noqa: E402

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((40, DIM)).astype(np.float32)
QUERY = RNG.standard_normal(DIM)


MODELS = (Item, Page, Word, Cover)


@pytest.fixture(scope="module")
def databases(request):
    """Return the alias of a database that has the tables."""
    made = []

    def of(kind):
        alias = "default" if kind == "sqlite" else kind
        if alias in made:
            return alias
        if alias not in connections.databases:
            dsn = conninfo_to_dict(request.getfixturevalue("pg_shared"))
            given = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
            place = {key: str(dsn.pop(name, "")) for key, name in given.items()}
            connections.databases[alias] = {"ENGINE": "django.db.backends.postgresql", **place, "OPTIONS": dsn}
            connections.configure_settings(connections.databases)
        with connections[alias].schema_editor() as editor:
            for model in MODELS:
                editor.create_model(model)
        made.append(alias)
        return alias

    yield of
    for alias in made:
        with connections[alias].schema_editor() as editor:
            for model in reversed(MODELS):
                editor.delete_model(model)
        connections[alias].close()


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, databases):
    alias = databases(request.param)
    yield alias
    for model in reversed(MODELS):
        execute(alias, f"DELETE FROM {model._meta.db_table}")


def execute(alias, statement, *given):
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, given)
        return cursor.fetchall() if cursor.description else None


def cells(alias, model, field):
    column = model._meta.get_field(field).column
    return [bytes(cell) for (cell,) in execute(alias, f"SELECT {column} FROM {model._meta.db_table}") if cell]


def some_items(alias, n=6):
    items = [Item(title=f"t{at}", embedding=VECTORS[at]) for at in range(n)]
    return Item.objects.using(alias).bulk_create(seal(items))


def test_vectors_come_back_however_they_are_asked_for(db):
    item = Item(title="a", embedding=VECTORS[0].tolist())
    item.save(using=db)
    assert item.embedding == VECTORS[0].tolist(), "what the caller passed stays"
    Item(title="none").save(using=db)
    page = Page.objects.using(db).create(item=item, place=VECTORS[1])
    cover = Cover(title="cover", embedding=VECTORS[2], front=VECTORS[3])
    cover.save(using=db)
    items = Item.objects.using(db)
    loaded = items.get(pk=item.pk)
    for vector in (
        loaded.embedding,
        items.only("title").get(pk=item.pk).embedding,
        items.values_list("embedding", flat=True).get(title="a"),
        items.annotate(other=models.F("embedding"), n=models.Count("pages")).get(title="a").other,
        Page.objects.using(db).select_related("item").get().item.embedding,
        Page.objects.using(db).values("item__embedding").get()["item__embedding"],
        items.annotate(mine=models.Subquery(items.filter(title="a").values("embedding"))).get(title="none").mine,
        items.filter(title="a").union(items.filter(title="b")).get().embedding,
    ):
        assert vector.tolist() == VECTORS[0].tolist()
        assert not vector.flags.writeable
    loaded.embedding = VECTORS[4]
    loaded.save()
    item.refresh_from_db()
    assert item.embedding.tolist() == VECTORS[4].tolist()
    assert Page.objects.using(db).get().place.tolist() == VECTORS[1].tolist()
    read = Cover.objects.using(db).get()
    assert (read.embedding.tolist(), read.front.tolist()) == (VECTORS[2].tolist(), VECTORS[3].tolist())
    assert items.get(title="none").embedding is None
    assert items.filter(embedding__isnull=True).count() == 1
    page.item.embedding = None
    page.item.save()
    assert items.filter(embedding__isnull=True).count() == 2
    assert items.exclude(embedding=None).get().title == "cover"
    for stored in itertools.chain(cells(db, Page, "place"), cells(db, Cover, "front")):
        assert len(stored) == 88 + 4 * DIM
        assert VECTORS[1].tobytes()[:16] not in stored
    with pytest.raises(FieldError, match="Unsupported lookup 'gt'"):
        items.filter(embedding__gt=VECTORS[0])
    with pytest.raises(ev.errors.InputError, match="a vector cannot be compared"):
        items.filter(embedding=VECTORS[0]).exists()


def test_a_vector_opens_in_its_own_place_only(db):
    """Cells that are swapped, moved, put back under another key or altered are refused, and the row is named."""
    first, second = some_items(db, 2)
    with_key = uuid_text(db, first.pk)
    table = "UPDATE shop_item SET embedding = %s WHERE id = %s"
    good, other = cells(db, Item, "embedding")
    items = Item.objects.using(db)
    Cover(title="c", embedding=VECTORS[2], front=VECTORS[0]).save(using=db)
    (front,) = cells(db, Cover, "front")
    bad = bytearray(good)
    bad[70] ^= 1
    for cell in (other, front, bytes(bad), good[:-1], b""):
        execute(db, table, cell, with_key)
        with pytest.raises(ev.errors.AuthenticationError, match=f"shop_item.embedding: .* key '{first.pk}' could not"):
            items.get(pk=first.pk)
        with pytest.raises(ev.errors.AuthenticationError, match=str(first.pk)):
            nearest(items, "embedding", QUERY, 1)
    execute(db, table, good, with_key)
    assert items.get(pk=first.pk).embedding.tolist() == VECTORS[0].tolist()
    items.filter(pk=second.pk).update(id=uuid.uuid4())
    with pytest.raises(ev.errors.AuthenticationError, match="could not be authenticated"):
        list(items.filter(title="t1"))


def uuid_text(alias, key):
    return key if alias == "postgresql" else key.hex


def test_which_writes_are_taken(db):
    """A write that would not say which row a vector is for is refused, and its error shows no number of it."""
    items = Item.objects.using(db)
    first, second = some_items(db, 2)
    assert items.filter(pk=first.pk).update(embedding=ciphertext(Item, "embedding", VECTORS[7], str(first.pk))) == 1
    assert items.get(pk=first.pk).embedding.tolist() == VECTORS[7].tolist()
    assert items.filter(pk=second.pk).update(embedding=None) == 1
    secret = np.full(DIM, 0.123456, np.float32)
    first.embedding = secret
    before = cells(db, Item, "embedding")
    for write in (
        lambda: items.filter(pk=first.pk).update(embedding=secret),
        lambda: items.bulk_update([first], ["embedding"]),
        lambda: items.create(title="x", embedding=[*secret, 1.0]),
        lambda: items.create(title="x", embedding=secret * np.nan),
        lambda: items.create(title="x", embedding="0.123456"),
        lambda: items.create(title="x", embedding=secret * 0),
        lambda: items.create(title="x", embedding=models.F("title")),
        lambda: items.bulk_create(seal([Item(title="y", embedding=secret), Item(title="x", embedding=secret[:3])])),
        lambda: ciphertext(Item, "embedding", secret, None),
        lambda: serializers.serialize("json", [first]),
        lambda: next(serializers.deserialize("python", [fixture(first, secret)])).save(using=db),
    ):
        with pytest.raises(ev.errors.InputError) as caught:
            write()
        assert "123" not in str(caught.value)
        assert cells(db, Item, "embedding") == before
    for value in ([1.0], "x", secret * np.nan):
        with pytest.raises(ValidationError, match="embedding"):
            Item(title="x", embedding=value).full_clean(validate_unique=False)
    Item(title="x", embedding=secret).full_clean(validate_unique=False)
    with pytest.raises(ValidationError, match="cannot be null"):
        Page(place=None).clean_fields()
    sealed = seal([first])[0]
    sealed.embedding = VECTORS[9]  # set after it was sealed
    sealed.save()
    assert items.get(pk=first.pk).embedding.tolist() == VECTORS[9].tolist()
    copy = items.get(pk=first.pk)
    copy.pk, copy._state.adding = uuid.uuid4(), True
    copy.save(using=db)
    assert items.get(pk=copy.pk).embedding.tolist() == VECTORS[9].tolist()
    with contextlib.suppress(RuntimeError), transaction.atomic(using=db):
        items.create(title="undone", embedding=VECTORS[0])
        assert len(nearest(items, "embedding", VECTORS[0], 9)) == 3
        raise RuntimeError
    assert len(nearest(items, "embedding", VECTORS[0], 9)) == 2


def fixture(item, vector):
    return {"model": "shop.item", "pk": str(item.pk), "fields": {"title": "x", "embedding": vector.tolist()}}


def test_keys_that_the_database_makes_and_rotation(db):
    """Such a row is bound by its next save or by reencrypt; until then its cell can be exchanged, not forged."""
    pages, words = Page.objects.using(db), Word.objects.using(db)
    for at in range(5):
        pages.create(number=at, place=VECTORS[at])
    execute(db, "UPDATE shop_page SET place = (SELECT place FROM shop_page WHERE number = 1) WHERE number = 0")
    assert pages.get(number=0).place.tolist() == VECTORS[1].tolist()
    page = pages.get(number=2)
    page.save()
    assert reencrypt(pages, "place", limit=3) == 3
    assert (reencrypt(pages, "place"), reencrypt(pages, "place")) == (1, 0)
    execute(db, "UPDATE shop_page SET place = (SELECT place FROM shop_page WHERE number = 1) WHERE number = 2")
    with pytest.raises(ev.errors.AuthenticationError, match=f"key '{page.pk}'"):
        pages.get(number=2)
    word = words.create(name="né %s", vector=3 * VECTORS[0])
    assert words.get(name="né %s").vector.tolist() == (3 * VECTORS[0]).tolist()
    with pytest.raises(ev.errors.InputError, match="primary key must be known"):
        word.__class__(name="", vector=VECTORS[0]).save(using=db)
    before = cells(db, Word, "vector")
    KEYS.rotate()
    assert [hit.item.name for hit in nearest(words, "vector", VECTORS[0], 1)] == ["né %s"]
    assert (reencrypt(words, "vector"), reencrypt(words, "vector")) == (1, 0)
    assert cells(db, Word, "vector") != before
    (near,) = nearest(words, "vector", VECTORS[0], 1)
    assert near.score == pytest.approx(3 * float(VECTORS[0].astype(float) @ VECTORS[0]))


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_nearest(db, metric, monkeypatch):
    """As numpy ranks what the filter passes, whatever the batches."""
    monkeypatch.setattr(searching, "_BATCH", 7)
    model, field = {"cosine": (Item, "embedding"), "l2": (Page, "place"), "ip": (Word, "vector")}[metric]
    name = {"cosine": "title", "l2": "number", "ip": "name"}[metric]
    rows = model.objects.using(db)
    rows.bulk_create(seal([model(**{name: at, field: VECTORS[at]}) for at in range(40)]))
    if metric == "cosine":
        rows.create(title="none")
        item = rows.get(title="3")
        Page.objects.using(db).bulk_create([Page(number=at, item=item, place=VECTORS[at]) for at in range(9)])
    for chosen, k in ((range(40), 5), (range(40), 99), ([3, 30, 31], 2), ([], 3)):
        hits = nearest(rows.filter(**{f"{name}__in": list(chosen)}).order_by("-pk"), field, QUERY, k)
        expected = scores(metric, VECTORS[list(chosen)])
        order = np.argsort(expected if metric == "l2" else -expected)[:k]
        assert [int(getattr(hit.item, name)) for hit in hits] == [list(chosen)[at] for at in order]
        assert np.allclose([hit.score for hit in hits], expected[order])
        assert all(not hasattr(hit.item, "encvec_cell") for hit in hits)
    if metric == "cosine":
        joined = nearest(rows.filter(pages__isnull=False).only("title"), field, QUERY, 5)
        assert [hit.item.title for hit in joined] == ["3"], "a row counts once, however often a join has it"


def scores(metric, vectors):
    vectors = vectors.reshape(-1, DIM).astype(float)
    if metric == "l2":
        return np.linalg.norm(vectors - QUERY, axis=1)
    products = vectors @ QUERY
    return products if metric == "ip" else products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(QUERY)


def test_a_row_that_is_replaced_meanwhile_has_the_score_of_its_new_vector(db, monkeypatch):
    some_items(db, 3)
    items, scan, scans = Item.objects.using(db), searching._scanned, []

    def replaced(*given):
        found = scan(*given)
        scans.append(found)
        if len(scans) == 1:
            nearest_now = items.get(pk=next(iter(found)))
            nearest_now.embedding = -QUERY
            nearest_now.save()
        return found

    monkeypatch.setattr(searching, "_scanned", replaced)
    first = nearest(items, "embedding", QUERY, 3)
    assert first[-1].score == pytest.approx(-1)
    assert len(scans) == 2
    monkeypatch.setattr(searching, "_scanned", lambda *given: {uuid.uuid4(): (1.0, b"")})
    with pytest.raises(ev.errors.StoreUnreachableError):
        nearest(items, "embedding", QUERY, 1)


def test_which_searches_are_refused(databases):
    databases("sqlite")
    items = Item.objects.all()
    for call, message in (
        (lambda: nearest(items[:3], "embedding", QUERY, 1), "without a slice"),
        (lambda: nearest(items.union(items), "embedding", QUERY, 1), "union"),
        (lambda: nearest(items.values("title"), "embedding", QUERY, 1), "values"),
        (lambda: nearest(items, "title", QUERY, 1), "name of an EncryptedVectorField of Item, got 'title'"),
        (lambda: nearest(items, "embedding", QUERY[:3], 1), "12"),
        (lambda: nearest(items, "embedding", QUERY * 0, 1), "zero"),
        (lambda: nearest(items, "embedding", QUERY, 0), "k must be"),
    ):
        with pytest.raises(ev.errors.InputError, match=message):
            call()


@pytest.mark.asyncio
async def test_nearest_awaited(tmp_path, databases):
    """As Django's own: in its one thread for databases."""
    from asgiref.sync import sync_to_async

    await sync_to_async(databases)("sqlite")
    await sync_to_async(some_items)("default", 3)
    (hit,) = await anearest(Item.objects.all(), "embedding", VECTORS[1], 1)
    assert hit.item.title == "t1"
    await sync_to_async(execute)("default", "DELETE FROM shop_item")


def test_migrations_have_no_keys(databases):
    """What makemigrations writes makes the same column, and a migration of data has the keys of the settings."""
    databases("sqlite")
    state = ProjectState()
    fields = [(f.name, f.clone()) for f in Word._meta.local_fields]
    made = migrations.CreateModel("Old", fields)
    written = MigrationWriter(type("Migration", (migrations.Migration,), {"operations": [made]})("0001", "shop"))
    text = written.as_string()
    assert "encvec_store.integrations.django.EncryptedVectorField(12, metric='ip', require_identity=True" in text
    assert "keyset" not in text.lower()
    names = {}
    exec(text, names)  # noqa: S102
    (operation,) = names["Migration"].operations
    operation.state_forwards("shop", state)
    old = state.apps.get_model("shop", "Old")
    with connections["default"].schema_editor() as editor:
        editor.create_model(old)
    old.objects.create(name="a", vector=VECTORS[0])
    assert old.objects.get().vector.tolist() == VECTORS[0].tolist()
    with connections["default"].schema_editor() as editor:
        editor.delete_model(old)
    same, other = Word._meta.get_field("vector"), EncryptedVectorField(DIM, KEYS, metric="ip", require_identity=True)
    assert same.deconstruct()[1:3] == other.deconstruct()[1:3]
    assert EncryptedVectorField(DIM, editable=True, collection="x.y").deconstruct()[3] == {
        "collection": "x.y",
        "editable": True,
    }


def test_what_the_checks_say(databases, settings_without_keys):
    assert checks.run_checks() == []

    class Dated(models.Model):
        day = models.DateField(primary_key=True)
        vector = EncryptedVectorField(DIM)

        class Meta:
            app_label = "shop"

    (said,) = Dated.check()
    assert said.id == "encvec_store.E001"
    assert "primary key must be an integer, text or UUID field of Django's own, got DateField" in said.msg
    with pytest.raises(ImproperlyConfigured, match="keyset must be a Keyset or a function that returns one, got None"):
        ciphertext(Keyless, "vector", VECTORS[0], 1)
    for given in ({"dim": 0}, {"dim": 3, "metric": "manhattan"}):
        with pytest.raises(ev.errors.InputError):
            EncryptedVectorField(**given)
    assert "0x" not in repr(ciphertext(Item, "embedding", VECTORS[0], uuid.uuid4()))


@pytest.fixture
def settings_without_keys():
    kept, settings.ENCVEC_KEYSET = settings.ENCVEC_KEYSET, None
    yield
    settings.ENCVEC_KEYSET = kept
