"""No file that a sealed collection opens holds plaintext, and neither do the tables of PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import psycopg
import pytest
from psycopg import sql

DIM, RECORDS = 16, 400

LIFE = textwrap.dedent("""
    import json, os, stat, sys

    opened = set()

    def note(path, flags):
        if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            opened.add(os.path.abspath(os.fsdecode(path)))

    def hook(event, arguments):
        if event == "open":
            note(arguments[0], arguments[2] or 0)
        elif event == "sqlite3.connect":
            note(arguments[0].removeprefix("file:").partition("?")[0], os.O_RDWR)
        elif event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
            opened.add(os.fsdecode(arguments[0]))
        elif event in ("os.memfd_create", "_posixshmem.shm_open"):
            opened.add(f"memory: {arguments}")

    def held():
        # what is open or mapped now and can be written: a file, shared memory or a deleted one
        for name in os.listdir("/proc/self/fd"):
            try:
                path, mode = os.readlink(f"/proc/self/fd/{name}"), os.stat(f"/proc/self/fd/{name}").st_mode
                flags = int(open(f"/proc/self/fdinfo/{name}").read().split()[3], 8)
            except OSError:
                continue
            if int(name) > 2 and stat.S_ISREG(mode) and flags & (os.O_WRONLY | os.O_RDWR):
                opened.add(path)
        for line in open("/proc/self/maps"):
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[1][1] == "w" and fields[1][3] == "s":
                opened.add(fields[5].strip())

    from glob import glob

    import numpy as np
    import encvec_store as ev
    from encvec_store import low_level
    from encvec_store.sealed_index import builder, index

    sys.addaudithook(hook)
    url, kind, out, control = sys.argv[1:]
    builder.FIRST, builder.LAST, index.COARSE = 60, 10, 200
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    names = [f"secret-name-{i:04}" for i in range(400)]

    def write(things, chosen):
        things.upsert(
            [names[i] for i in chosen],
            vectors[chosen],
            metadata=[{"secret-key": f"secret-value-{i:04}"} for i in chosen],
            documents=[f"a secret document, number {i:04}" for i in chosen],
        )

    keyset = ev.Keyset.create("memory:")
    codes = []
    for _ in range(2):
        with ev.connect(url, keyset=keyset, maintenance="inline") as store:
            things = store.collection("things", dim=16, metric="cosine", scheme="sealed")
            write(things, range(100, 350)), held()
            things.maintain(), held()
            write(things, range(100)), write(things, range(40, 80))
            things.search(vectors[3], k=5, where={"secret-key": "secret-value-0003"})
            things.maintain(), held()
            write(things, range(350, 400))
            things.search(vectors[:7], k=5), held()
            things.delete(names[20:160])
            things.maintain(purge=True), held()
            keyset.rotate()
            write(things, range(200))
            things.maintain(), held()
            things.search(vectors[3], k=5)
            for part in low_level.lifecycle(things)._indexing._index.sealed.state.parts:
                for arrays in (part.graph.codes(0, part.graph.count), part.graph.structure()):
                    codes += [a.tobytes() for a in arrays.values() if a.dtype != np.int32]
            if control:
                open(control, "wb").write(b"123" + vectors[7].tobytes())
            if url.startswith("faiss"):  # the write-ahead log goes when the store is closed
                folder = url.partition("://")[2].partition("?")[0]
                open(out + ".bytes", "ab").write(b"".join(open(at, "rb").read() for at in glob(folder + "/*")))
    np.savez(out, vectors=vectors, codes=np.frombuffer(b"".join(codes), np.uint8))
    open(out + ".json", "w").write(json.dumps(sorted(path for path in opened if not path.startswith(out))))
    print("lived")
""")


def lived(url, folder, kind, control="", *, trace=None):
    """Let a collection live in a child process: (the files that it opened for writing, vectors, codes of graphs)."""
    (folder / "tmp").mkdir()
    (folder / "seen").mkdir()
    out = str(folder / "seen" / "all.npz")
    command = [sys.executable, "-c", LIFE, url, kind, out, control]
    environment = os.environ | {"TMPDIR": str(folder / "tmp")}
    done = subprocess.run([*(trace or []), *command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "lived", done.stderr
    with np.load(out) as seen, open(out + ".json") as opened:
        return json.load(opened), seen["vectors"], seen["codes"].tobytes()


def pieces(vectors, codes):
    """Return what must be nowhere: pieces of 16 bytes of vectors in many forms and of codes, ordered."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    forms = [vectors, unit, vectors - vectors.mean(0), unit - unit.mean(0)]
    forms += [form.astype(kind) for form in forms for kind in (np.float16, np.float64)]
    blocks = [codes, *(np.ascontiguousarray(form).tobytes() for form in forms)]
    found = {block[at : at + 16] for block in blocks for at in range(0, len(block) - 15, 16)}
    return sorted(piece for piece in found if len(set(piece)) > 4)  # zeros are everywhere


def plaintext_in(content, wanted):
    """Return a piece that the bytes hold at any place, or None."""
    for word in (b"secret", b"document, number"):
        if word in content:
            return word
    begins = np.unique(np.frombuffer(b"".join(piece[:8] for piece in wanted), np.uint64))
    known = np.zeros(1 << 24, np.bool_)  # most places are ruled out by 24 bits
    known[begins & np.uint64(0xFFFFFF)] = True
    whole = set(wanted)
    for shift in range(8):
        numbers = np.frombuffer(content, np.uint64, (len(content) - shift) // 8, shift)
        for place in np.flatnonzero(known[numbers & np.uint64(0xFFFFFF)]):
            piece = content[8 * place + shift : 8 * place + shift + 16]
            if piece in whole:
                return piece
    return None


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_no_file_holds_plaintext(kind, tmp_path):
    """A whole life: written, updated, searched, merged, purged, sealed under a new key version, opened again."""
    place = tmp_path / "store"
    opened, vectors, codes = lived(f"faiss://{place}?index={kind}", tmp_path, kind)
    wanted = pieces(vectors, codes)
    assert len(wanted) > 4_000
    assert set(opened) <= _files_of(place)
    assert not list((tmp_path / "tmp").iterdir())
    files = [*place.iterdir(), tmp_path / "seen" / "all.npz.bytes"]
    assert len(files) > 1
    for file in files:
        assert plaintext_in(file.read_bytes(), wanted) is None, file.name


def test_plaintext_would_be_found(tmp_path):
    """A file of one vector, written during that life, is noticed, and so are its bytes."""
    place, leak = tmp_path / "store", tmp_path / "leak"
    opened, vectors, codes = lived(f"faiss://{place}?index=hnsw", tmp_path, "hnsw", str(leak))
    assert str(leak) in opened
    assert plaintext_in(leak.read_bytes(), pieces(vectors, codes)) in vectors[7].tobytes()
    assert plaintext_in(leak.read_bytes(), [b"another piece..."]) is None


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_system_sees_no_other_file(tmp_path):
    """Libraries in C open no file to write either, and no shared memory: strace lists what the process opens."""
    place, log = tmp_path / "store", tmp_path / "log"
    calls = "trace=open,openat,creat,memfd_create,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink"
    trace = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", calls]
    lived(f"faiss://{place}?index=hnsw", tmp_path, "hnsw", trace=trace)
    written = set()
    for line in log.read_text().splitlines():
        made = "O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line or "open" not in line
        if made and "= -1 " not in line and "(" in line:
            written.add(line.split('"')[1] if '"' in line else line)
    written = {path for path in written if not path.startswith((str(tmp_path / "seen"), "/dev/"))}
    assert str(place / "records.sqlite3") in written
    assert written <= _files_of(place) | {str(place)}


def test_no_table_holds_plaintext(tmp_path, pg_place):
    """In PostgreSQL the process writes no file at all, and what COPY returns of every table is sealed."""
    url = f"{pg_place.url}&index=hnsw"
    opened, vectors, codes = lived(url, tmp_path, "hnsw")
    assert opened == []
    assert not list((tmp_path / "tmp").iterdir())
    wanted, copied = pieces(vectors, codes), {}
    with psycopg.connect(pg_place.dsn) as connection:
        tables = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
        for (table,) in connection.execute(tables, [pg_place.schema]).fetchall():
            copy = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(pg_place.schema, table))
            with connection.cursor().copy(copy) as rows:
                copied[table] = b"".join(bytes(piece) for piece in rows)
    assert len(copied["blobs"]) > 100_000
    for table, content in copied.items():
        assert plaintext_in(content, wanted) is None, table


def _files_of(place):
    return {str(place / f"records.sqlite3{end}") for end in ("", "-wal", "-shm", "-journal")}
