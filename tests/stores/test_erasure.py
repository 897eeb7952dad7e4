"""A tenant is erased: with the keys that are left, nobody reads it from the store, a backup, or another process."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.keys import Keyset, StoredKeyset
from tests.kits.faults.common import CONTEXT
from tests.kits.postgres import copied

DIM = 16
KINDS = ["memory", "faiss", "postgresql"]
NAMES = ["clear", "sealed"]
DOCUMENT = "the report of acme"
RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((40, DIM)).astype(np.float32)
IDS = [f"id{n}" for n in range(40)]


@pytest.fixture
def uri(tmp_path):
    return f"file:{tmp_path}/keys.json?wrap=none"


@pytest.fixture
def keyset(uri):
    return Keyset.create(uri)


@pytest.fixture
def url(request, tmp_path):
    """The URL of a store of each kind."""
    match request.param:
        case "memory":
            return "memory:"
        case "faiss":
            return f"faiss:{tmp_path}/store"
    return request.getfixturevalue("pg_place").url


def fill(store, tenant="acme", name="things", scheme="sealed", **settings):
    things = store.collection(name, DIM, tenant=tenant, scheme=scheme, **settings)
    things.upsert(IDS, VECTORS, documents=[DOCUMENT] * len(IDS))
    things.flush()
    return things


def best(things):
    return things.search(VECTORS[7], k=1)[0].id


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("url", KINDS, indirect=True)
def test_erased(url, names, keyset):
    with ev.connect(url, keyset=keyset, names=names) as store:
        store.add_tenant("acme")
        things, ranked = fill(store), fill(store, name="ranked", scheme="sap")
        others = [fill(store, tenant) for tenant in ("", "other")]
        assert (best(things), best(ranked)) == ("id7", "id7")
        report = store.erase_tenant("acme")
        assert (report.tenant, report.collections, report.seconds) == ("acme", 2, 300)
        assert "copies of the keyset from before" in report.remains
        again = store.erase_tenant("acme")
        assert (again.at, again.collections) == (report.at, 0)
        uses = [
            lambda: best(things),
            lambda: best(ranked),
            lambda: things.get(["id1"]),
            lambda: next(things.scroll()),
            lambda: things.upsert(["new"], VECTORS[:1]),
            lambda: things.delete(["id1"]),
            lambda: store.collection("things", tenant="acme"),
            lambda: store.collection("another", DIM, tenant="acme"),
        ]
        for use in uses:
            with pytest.raises(errors.TenantErasedError, match="tenant 'acme' was erased at"):
                use()
        assert store.collections("acme") == []
        assert [best(other) for other in others] == ["id7", "id7"], "others notice nothing"
        store.add_tenant("acme")
        new = store.collection("things", DIM, tenant="acme")
        assert new.count() == 0
        new.upsert(["id7"], VECTORS[7:8])
        assert best(new) == "id7"
        assert new.verify().ok


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("url", KINDS, indirect=True)
def test_a_tenant_without_a_key_of_its_own(url, names, keyset):
    """It is not erased by halves: first it gets a key, and all of it is sealed anew."""
    with ev.connect(url, keyset=keyset, names=names) as store:
        things = fill(store)
        with pytest.raises(errors.InputError, match="has no key of its own, so it cannot be erased"):
            store.erase_tenant("acme")
        with pytest.raises(errors.InputError, match="has 1 collections under the keys of the keyset already"):
            store.add_tenant("acme")
        store.add_tenant("acme", rotate=True)
        assert best(things) == "id7"
        with pytest.raises(errors.InputError, match=r"records under key version 1.*rekey\(tenant='acme'\) first"):
            store.erase_tenant("acme")
        assert all(report.done for report in store.rekey(tenant="acme"))
        assert best(things) == "id7"
        assert things.verify().ok
        report = store.erase_tenant("acme")
        assert (report.collections, "open with key versions 1" in report.remains) == (1, True)


@pytest.mark.parametrize("url", KINDS, indirect=True)
@pytest.mark.parametrize("rotate", [False, True])
def test_a_damaged_name_keeps_no_tenant_from_being_erased(url, rotate, keyset):
    """Who writes in the store could otherwise prevent it."""
    with ev.connect(url, keyset=keyset, names="sealed", maintenance="manual") as store:
        if not rotate:
            store.add_tenant("acme")
        things, other = fill(store), fill(store, "other")
        fill(store, name="more")
        low_level.records(things).keep(drop=["name"])
        if rotate:
            with pytest.raises(errors.AuthenticationError, match="names could not be authenticated"):
                store.rekey(tenant="acme")
            keyset.tenants.add("acme")
            for name, cure in (("more", r"call rekey\(tenant='acme'\) first"), ("things", "rekey it by its name")):
                with pytest.raises(errors.InputError, match=f"has records under key version 1.*{cure}"):
                    store.erase_tenant("acme")
                assert store.collection(name, tenant="acme").rekey().done
        assert store.erase_tenant("acme").collections == 2
        with pytest.raises(errors.TenantErasedError):
            best(things)
        assert store.collections() == [("other", "things")]
        assert best(other) == "id7"


def test_each_new_tenant(keyset, uri):
    """With erasable=True, tenants get keys as they come; one that was erased does not come back by itself."""
    with ev.connect("memory:", keyset=keyset) as store:
        fill(store, "old")
    with ev.connect("memory:", keyset=keyset, erasable=True) as store:
        for tenant in ("", "acme", "other"):
            fill(store, tenant)
        fill(store, "acme", "more")
        assert [item.name for item in keyset.tenants] == ["acme", "other"]
        assert store.erase_tenant("acme").collections == 2
        with pytest.raises(errors.TenantErasedError):
            fill(store, "acme")
        assert best(store.collection("things", tenant="other")) == "id7"


def opened(keyset):
    """The keyset, unwrapped."""
    return json.loads(base64.b64decode(keyset.export(unsafe_cleartext=True)))


def forged(keyset, *tenants):
    """The keyset of a thief: all its roots, and of tenants what he likes to say."""
    content = json.dumps({**opened(keyset), "tenants": tenants}).encode()
    return Keyset.restore("memory:", base64.b64encode(content).decode())


@contextmanager
def backed_up(request, url, tmp_path):
    """A store to fill; `save()` copies all of it, and gives the URL of the copy."""
    if url == "faiss":
        place = tmp_path / "store"
        yield f"faiss:{place}", lambda: f"faiss:{shutil.copytree(place, tmp_path / 'backup')}"
        return
    dsn, server = request.getfixturevalue("pg_dsn"), request.getfixturevalue("pg_server")
    with psycopg.connect(dsn) as connection:
        (database,) = connection.execute("SELECT current_database()").fetchone()
    copies = []

    def save():
        copies.append(copied(server, database))
        return copies[-1].__enter__()

    try:
        yield dsn, save
    finally:
        for each in copies:
            each.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["faiss", "postgresql"])
@pytest.mark.parametrize(("scheme", "names"), [("sealed", "clear"), ("sap", "clear"), ("sealed", "sealed")])
def test_a_thief_with_a_backup_and_the_keyset(request, kind, scheme, names, tmp_path, keyset, uri):
    """An older copy of the whole store, and the keyset as it is after the erasure. Before it, they open everything."""
    with backed_up(request, kind, tmp_path) as (url, save):
        with ev.connect(url, keyset=keyset, names=names) as store:
            store.add_tenant("acme")
            fill(store, scheme=scheme)
            fill(store, "other", scheme=scheme)
        backup = save()
        (key,) = opened(keyset)["tenants"]
        control = forged(keyset, key)
        with ev.connect(backup, keyset=control, maintenance="manual") as store:
            assert best(store.collection("things", tenant="acme")) == "id7", "before the erasure he reads it"
        with ev.connect(url, keyset=keyset) as store:
            store.erase_tenant("acme")
        stolen = Keyset.open(uri)
        assert key["secret"] not in json.dumps(opened(stolen))
        for place in (backup, url):
            with ev.connect(place, keyset=stolen, maintenance="manual") as store:
                with pytest.raises(errors.TenantErasedError):
                    store.collection("things", tenant="acme")
                assert best(store.collection("things", tenant="other")) == "id7"
                old = [("acme", "things")] if place == backup else []
                assert store.collections() == [*old, ("other", "things")], "names are not under the tenant's key"
        nothing = base64.b64encode(bytes(32)).decode()
        for lie in ([], [{**key, "secret": nothing}], [{**key, "secret": nothing, "since": 9}]):
            mine = ev.connect(backup, keyset=forged(stolen, *lie), maintenance="manual")
            with mine as store, pytest.raises(errors.AuthenticationError):
                store.collection("things", tenant="acme")
        with ev.connect(backup, keyset=keyset) as store:  # a backup that was brought back
            with pytest.raises(errors.InputError, match="call erase_tenant again first"):
                store.add_tenant("acme")
            assert store.erase_tenant("acme").collections == 1
            store.add_tenant("acme")
            fill(store)


@pytest.mark.parametrize("url", ["faiss", "postgresql"], indirect=True)
def test_other_processes(url, keyset, uri):
    """A process with an older view of the keyset makes no collection under other keys, and learns of an erasure."""
    stale = Keyset.open(uri)
    with ev.connect(url, keyset=keyset) as store, ev.connect(url, keyset=stale) as other:
        store.add_tenant("acme")
        made = fill(other)
        assert best(store.collection("things", tenant="acme")) == best(made) == "id7"
        store.add_tenant("late")
        fill(store, "late")
        assert best(other.collection("things", tenant="late")) == "id7", "it reads the keyset again"
        store.erase_tenant("late")
        with pytest.raises(errors.TenantErasedError):
            other.collection("things", DIM, tenant="late")
        index = made._lifecycle._indexing._index.sealed
        assert index.state is not None
        store.erase_tenant("acme")
        stale.tenants.look()  # as the timer does
        assert index.state is None, "nothing that was opened stays in memory"
        with pytest.raises(errors.TenantErasedError):
            best(made)
        assert index.state is None


def test_a_key_made_just_now(keyset, uri, monkeypatch):
    """Another process adds the tenant while its first collection is made: it is made again, under the new key."""
    with ev.connect("memory:", keyset=keyset) as store:
        create, elsewhere = type(store._records).create, Keyset.open(uri)

        def late(records, spec, config):
            if not list(elsewhere.tenants):
                elsewhere.tenants.add("acme", rotate=False)
            return create(records, spec, config)

        monkeypatch.setattr(type(store._records), "create", late)
        fill(store)
        assert len(keyset.tenants) == 1
        assert store.erase_tenant("acme").collections == 1


def test_async(tmp_path, keyset):
    async def work():
        async with ev.aio.connect(f"faiss:{tmp_path}/store", keyset=keyset, erasable=True) as store:
            await store.add_tenant("acme")
            for tenant in ("acme", "other"):
                things = await store.collection("things", DIM, tenant=tenant)
                await things.upsert(IDS, VECTORS)
            assert (await store.erase_tenant("other")).collections == 1
            assert (await store.erase_tenant("acme")).collections == 1
            with pytest.raises(errors.TenantErasedError):
                await things.search(VECTORS[7])

    asyncio.run(work())


def kill_at(step):
    """Return a wrapper of functions: kills this process at a step, where each call has one before it and one after."""
    passed = itertools.count(1)

    def counted(method):
        def wrapped(*args, **given):
            if next(passed) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*args, **given)
            if next(passed) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    return counted


def erase(url, uri, step):
    counted = kill_at(step)
    StoredKeyset._replace = counted(StoredKeyset._replace)
    store = ev.connect(url, keyset=Keyset.open(uri))
    store._records.drop = counted(store._records.drop)
    store.erase_tenant("acme")


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("url", ["faiss", "postgresql"], indirect=True)
def test_killed_at_every_step(url, names, keyset, uri):
    """The key goes first. Wherever it was killed, the tenant is whole or unreadable, and the next call ends it."""
    with ev.connect(url, keyset=keyset, names=names) as store:
        for step in range(1, 7):
            store.add_tenant("acme")
            for name in ("one", "two"):
                store.collection(name, DIM, tenant="acme").upsert(IDS, VECTORS)
            process = CONTEXT.Process(target=erase, args=(url, uri, step))
            process.start()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL, step
            fresh = Keyset.open(uri)
            with ev.connect(url, keyset=fresh) as again:
                if step == 1:
                    assert best(again.collection("one", tenant="acme")) == "id7"
                else:
                    with pytest.raises(errors.TenantErasedError):
                        again.collection("one", tenant="acme")
                left = len(again.collections("acme"))
                assert left == [2, 2, 2, 1, 1, 0][step - 1]
                assert again.erase_tenant("acme").collections == left
                assert again.collections("acme") == []
            keyset.tenants.look()


CHILD = """
import sys
import numpy as np
import encvec_store as ev
url, uri, query = sys.argv[1:]
keyset = ev.Keyset.open(uri, lifetime=1.0)
store = ev.connect(url, keyset=keyset, maintenance="manual")
things = store.collection("things", tenant="acme")
for line in sys.stdin:
    try:
        print(things.search(np.load(query), k=1)[0].id, flush=True)
    except ev.errors.EncvecError as error:
        print(type(error).__name__, flush=True)
"""


def found_in_memory(process, wanted):
    """Count each of these bytes in the memory of a process."""
    found = dict.fromkeys(wanted, 0)
    with Path(f"/proc/{process.pid}/maps").open() as maps, Path(f"/proc/{process.pid}/mem").open("rb", 0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            start, end = (int(part, 16) for part in place.split("-"))
            if rights[0] != "r" or "[v" in line:
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue
            for name, some in wanted.items():
                found[name] += content.count(some)
    return found


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="reads /proc/PID/mem")
def test_the_memory_of_another_process(tmp_path, keyset, uri):
    """Idle all the time, it drops the opened vectors, and has no answer any more."""
    url, count, dim = f"faiss:{tmp_path}/store", 3_000, 64
    vectors = RNG.standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(tmp_path / "query.npy", vectors[7])
    with ev.connect(url, keyset=keyset, maintenance="inline") as store:
        store.add_tenant("acme")
        things = store.collection("things", dim, "ip", tenant="acme")
        things.upsert([f"id{n}" for n in range(count)], vectors)
        things.flush()
        wanted = {f"vector {n}": vectors[n, :16].tobytes() for n in (0, 1_000, count - 1)}
        command = [sys.executable, "-c", CHILD, url, uri, str(tmp_path / "query.npy")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:

            def ask():
                child.stdin.write("\n")
                child.stdin.flush()
                return child.stdout.readline().strip()

            try:
                assert ask() == "id7"
                assert all(found_in_memory(child, wanted).values()), "before the erasure they are there"
                store.erase_tenant("acme")
                deadline = time.monotonic() + 30
                while any(found_in_memory(child, wanted).values()) and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert not any(found_in_memory(child, wanted).values())
                assert ask() == "TenantErasedError"
            finally:
                child.kill()
