"""What other packages add, with real installed ones: found by name, loaded on use, never in the place of ours."""

import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import encvec_store
from encvec_store.errors import InputError, PluginError, UriError
from encvec_store.indexes import STORES, StoreKind, open_connection, registry, waits_in_loop
from encvec_store.keys import Keyset
from encvec_store.runtime import plugins

ROOT = Path(encvec_store.__file__).parent.parent
SECRET = "hunter2"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package: its code, and what it offers by group and name."""

    def installed(name, code, offers, version="1.2"):
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        lines = [f"[{group}]\n{key} = {value}\n" for group, pairs in offers.items() for key, value in pairs.items()]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")

    monkeypatch.syspath_prepend(tmp_path)
    yield installed
    for name in [name for name, module in sys.modules.items() if _is_under(module, tmp_path)]:
        del sys.modules[name]


def _is_under(module, folder):
    return str(getattr(module, "__file__", None) or "").startswith(f"{folder}{os.sep}")


def python(tmp_path, *args, **more):
    """Run Python in a process of its own that sees the packages installed here."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120, **more
    )


# ---------------------------------------------------------------------------------------------- stores


def fake(url, **options):
    return "blocking", url, options


def fake_in_loop(url, **options):
    return "in loop", url, options


BOTH = StoreKind(f"{__name__}:fake", f"{__name__}:fake_in_loop")
STORE = """
from encvec_store.indexes.registry import StoreKind
KIND = StoreKind("acme:connect", "acme:connect_in_loop")
BLOCKING = StoreKind("acme:connect")
ELSEWHERE = StoreKind("acme_driver:connect")
def connect(url, **options):
    return "acme", url, options
def connect_in_loop(url, **options):
    return "acme in loop", url, options
"""


def test_one_table_serves_both_kinds_of_callers(monkeypatch):
    monkeypatch.setitem(STORES, "both", BOTH)
    monkeypatch.setitem(STORES, "threads", StoreKind(f"{__name__}:fake"))
    assert waits_in_loop("both:x")
    assert not waits_in_loop("threads:x")
    assert open_connection("both:x", size=1) == ("blocking", "both:x", {"size": 1})
    assert open_connection("both:x", in_loop=True, size=1) == ("in loop", "both:x", {"size": 1})
    assert open_connection("threads:x") == ("blocking", "threads:x", {})
    with pytest.raises(UriError, match="threads: do not wait in the event loop"):
        open_connection("threads:x", in_loop=True)


def test_what_is_built_in():
    assert list(STORES) == ["memory", "faiss", "postgresql", "postgres", "postgresql+psycopg"]
    assert [waits_in_loop(f"{name}:") for name in STORES] == [False, False, True, True, True]


@pytest.mark.parametrize("call", [open_connection, waits_in_loop])
@pytest.mark.parametrize(
    "url",
    ["", "store", "/data", ":x", "FAISS:/x", "sqlite:///x", f"host=x password={SECRET}:", SECRET, None, 5, b"faiss:"],
)
def test_an_unknown_url_lists_the_known_and_shows_no_secret(call, url):
    with pytest.raises(UriError, match="must begin with one of memory:, faiss:, postgresql:") as caught:
        call(url)
    assert isinstance(caught.value, InputError)
    assert SECRET not in str(caught.value)


def test_a_mistyped_url_does_not_show_its_password():
    with pytest.raises(UriError, match=r"got postgrseql:\. A path must begin with \./ or /$"):
        open_connection(f"postgrseql://me:{SECRET}@host/db")


def test_a_store_of_another_package(install):
    install("acme", STORE, {plugins.STORES: {"acme": "acme:KIND", "slow": "acme:BLOCKING"}})
    assert open_connection("acme:x", size=1) == ("acme", "acme:x", {"size": 1})
    assert open_connection("acme:x", in_loop=True) == ("acme in loop", "acme:x", {})
    assert (waits_in_loop("acme:x"), waits_in_loop("slow:x")) == (True, False)
    with pytest.raises(UriError, match=r"postgresql\+psycopg:, acme:, slow:; got other:"):
        open_connection("other:x")


# ------------------------------------------------------------------------------------------------ keys

KEYS = """
from encvec_store.errors import KeysetError
kept = {}
class Shelf:
    wrapper = "passphrase"
    lasting = True
    def __init__(self, rest):
        self.uri, self.rest = f"shelf:{rest}", rest
    def exists(self):
        return self.rest in kept
    def read(self):
        return kept[self.rest]
    def create(self, content):
        kept[self.rest] = content
    replace = create
class Box:
    def __init__(self, rest, passphrase):
        self.rest = rest
    def new(self):
        return self.rest.encode() * 32, {"box": self.rest}
    def recover(self, header):
        if header != {"box": self.rest}:
            raise KeysetError("another box")
        return self.rest.encode() * 32
"""


def test_keyset_storages_and_wrappers_of_another_package(install):
    offers = {plugins.KEYSET_STORAGES: {"shelf": "acme:Shelf"}, plugins.KEY_WRAPPERS: {"box": "acme:Box"}}
    install("acme", KEYS, offers)
    keyset = Keyset.create("shelf:a", wrap="box:k")
    keyset.rotate()
    assert keyset.uri == "shelf:a?wrap=box:k"
    assert Keyset.open(keyset.uri).root(2) == keyset.root(2)
    with pytest.raises(UriError, match=r"file:, env:, memory:, keyring:, store:, shelf:, got other:"):
        Keyset.open("other:a")
    with pytest.raises(UriError, match=r"none, passphrase, .*, box, got 'other'"):
        Keyset.open("shelf:a", wrap="other")


# -------------------------------------------------------------------------- packages that do not behave


def test_a_built_in_name_is_never_taken(install, monkeypatch, caplog):
    """Not even imported: it must not stand between a program and its keys. Told where packages are looked at."""
    offers = {
        plugins.STORES: {"faiss": "acme:X", "memory": "acme:X"},
        plugins.KEYSET_STORAGES: {"memory": "acme:X"},
        plugins.KEY_WRAPPERS: {"passphrase": "acme:X", "none": "acme:X"},
    }
    install("acme", "raise RuntimeError('imported')", offers)
    monkeypatch.setitem(STORES, "faiss", BOTH)
    assert open_connection("faiss:x")[0] == "blocking"
    Keyset.create("memory:", wrap="none").rotate()
    assert caplog.records == []
    with caplog.at_level(logging.WARNING), pytest.raises(UriError):
        open_connection("other:")
    (told, _) = sorted(record.getMessage() for record in caplog.records)
    assert told == "the store 'faiss' of the package acme 1.2 is ignored: the name is built in"
    assert "acme" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise RuntimeError('half')", "RuntimeError: half"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("", "AttributeError"),
        ("def broken(:", "SyntaxError"),
    ],
)
@pytest.mark.parametrize(
    ("group", "what", "use"),
    [
        (plugins.STORES, "store", lambda: open_connection("acme:x")),
        (plugins.STORES, "store", lambda: waits_in_loop("acme:x")),
        (plugins.KEYSET_STORAGES, "keyset storage", lambda: Keyset.create("acme:x")),
        (plugins.KEY_WRAPPERS, "key wrapper", lambda: Keyset.create("memory:", wrap="acme:k")),
    ],
    ids=["store", "waits", "storage", "wrapper"],
)
def test_a_broken_package_is_named_when_it_is_used(install, group, what, use, code, reason):
    install("acme", code, {group: {"acme": "acme:X"}})
    install("sound", STORE.replace("acme:", "sound:"), {plugins.STORES: {"sound": "sound:KIND"}})
    assert open_connection("sound:x")[0] == "acme"
    Keyset.create("memory:")
    with pytest.raises(PluginError) as caught:
        use()
    assert f"the {what} 'acme' of the package acme 1.2 cannot be loaded ({reason}" in str(caught.value)
    assert str(caught.value).endswith("repair, upgrade or uninstall it")


def test_a_package_whose_driver_is_missing_is_named(install):
    install("acme", STORE, {plugins.STORES: {"acme": "acme:ELSEWHERE"}})
    assert not waits_in_loop("acme:x")
    with pytest.raises(
        PluginError, match=r"of the package acme 1\.2 cannot be loaded \(ModuleNotFoundError: No module"
    ):
        open_connection("acme:x")


def test_what_a_store_raises_by_itself_is_left_alone(install):
    code = STORE.replace('    return "acme", url, options', '    raise OSError("disk")')
    install("acme", code, {plugins.STORES: {"acme": "acme:KIND"}})
    with pytest.raises(OSError, match="disk"):
        open_connection("acme:x")


def test_two_packages_with_one_name(install):
    for name in ("acme", "bolt"):
        install(name, STORE.replace("acme:", f"{name}:"), {plugins.STORES: {"acme": f"{name}:KIND"}})
    with pytest.raises(PluginError, match=r"the packages acme 1\.2 and bolt 1\.2 is offered more than once"):
        open_connection("acme:x")


@pytest.mark.parametrize(
    ("group", "use", "wanted"),
    [
        (plugins.STORES, lambda: open_connection("acme:x"), "a StoreKind, got str"),
        (plugins.KEYSET_STORAGES, lambda: Keyset.create("acme:x"), "callable, got str"),
        (plugins.KEY_WRAPPERS, lambda: Keyset.create("memory:", wrap="acme"), "callable, got str"),
    ],
)
def test_an_object_of_another_kind(install, group, use, wanted):
    install("acme", "X = 'x'", {group: {"acme": "acme:X"}})
    with pytest.raises(PluginError, match=f"must be {wanted}"):
        use()


def test_nothing_is_read_for_what_is_built_in(monkeypatch):
    def read(**_):
        raise AssertionError("metadata was read")

    monkeypatch.setattr(metadata, "entry_points", read)
    monkeypatch.setitem(registry.STORES, "faiss", BOTH)
    open_connection("faiss:x")
    assert Keyset.create("memory:?wrap=none").primary == 1
    with pytest.raises(AssertionError, match="metadata was read"):
        open_connection("other:x")


def test_import_reads_no_metadata(tmp_path):
    code = """if 1:
        import importlib.metadata, sys
        def read(*args, **kwargs): raise SystemExit("metadata was read")
        importlib.metadata.entry_points = read
        import encvec_store
        """
    done = python(tmp_path, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


# -------------------------------------------------------------------------------------------- commands

COMMANDS = """
import click
@click.command()
@click.option("--name", default="you")
def hello(name):
    "Greet."
    click.echo(f"hello {name}")
"""
OFFERS = {plugins.COMMANDS: {"hello": "acme:hello", "count": "acme:hello"}}


def test_commands_of_other_packages(install, tmp_path):
    """One that does not load is listed, does no harm, and says why when it is called."""
    install("acme", COMMANDS, OFFERS)
    install("broken", "import nowhere_to_be_found", {plugins.COMMANDS: {"sorry": "broken:command"}}, "3")

    def encvec(*args):
        return python(tmp_path, "-m", "encvec_store.cli", *args)

    helped = encvec("--help")
    assert helped.returncode == 0
    shown = {words[0]: " ".join(words[1:]) for words in map(str.split, helped.stdout.splitlines()) if words}
    assert (shown["hello"], shown["sorry"]) == ("Greet.", "(cannot be loaded)")
    assert shown["count"] != "Greet."
    assert "the command 'count' of the package acme 1.2 is ignored: the name is built in" in helped.stderr
    assert encvec("hello", "--name", "me").stdout == "hello me\n"
    for args in (["sorry"], ["sorry", "--help"], ["sorry", "x", "--y", "--", "z"]):
        done = encvec(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert "the command 'sorry' of the package broken 3 cannot be loaded (ModuleNotFoundError" in done.stderr
        assert "Traceback" not in done.stderr
    error = json.loads(encvec("sorry", "--json").stderr.splitlines()[-1])["error"]
    assert error["type"] == "PluginError"
    unknown = encvec("nope")
    assert unknown.returncode == 2
    assert "No such command 'nope'" in unknown.stderr


# ------------------------------------------------------------------------------------------- the guide


def test_the_guide_s_example(install, tmp_path):
    """The package that the guide shows, installed as it stands there, does what the guide says."""
    guide = (Path(__file__).resolve().parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    module, project, use = re.findall(r"^```\w+\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    offers = tomllib.loads(project)["project"]["entry-points"]
    install("encvec_acme", module, offers)
    done = python(tmp_path, "-c", use)
    assert (done.returncode, done.stderr) == (0, "")
    done = python(tmp_path, "-m", "encvec_store.cli", "acme-where", "acme:vectors")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().endswith("vectors")
