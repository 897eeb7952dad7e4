"""A local server for real: start, stop, crash, restart, sharing, and who may read what."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from encvec_store.localpg import LocalServer, LocalServerError, processes
from encvec_store.localpg.account import choose_account

ROOT = Path(__file__).resolve().parents[2]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a server as another user")


def one(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement).fetchone()[0]


def write(dsn, *statements):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for each in statements:
            connection.execute(each)


def password(server):
    return (server.home / "pgpass").read_text().strip().rpartition(":")[2]


def restored(server):
    if server.pid is None:
        server.start()
    return server


class TestTemporary:
    def test_comes_with_pgvector_and_leaves_nothing(self, monkeypatch):
        monkeypatch.setenv("ENCVEC_PASSPHRASE", "correct horse")
        with LocalServer() as server:
            home, pid = server.home, server.pid
            environment = Path(f"/proc/{pid}/environ")
            if environment.exists():
                assert b"LC_ALL=C" in environment.read_bytes()
                assert b"correct horse" not in environment.read_bytes()
            assert server.ensure_database("made") == one(
                server.dsn("made"), "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            )
            assert one(server.dsn("made"), "SELECT '[1,2]'::vector <-> '[1,4]'") == 2.0
            assert one(server.dsn(), "SHOW fsync") == "off"
            assert one(server.dsn(), "SHOW dynamic_shared_memory_type") == "mmap"
            assert one(server.dsn(), "SHOW listen_addresses") == ""
        assert not home.exists()
        assert not processes.alive(pid)
        assert server.pid is None
        assert server.stop() is False

    def test_crashed_leaves_nothing(self):
        with LocalServer() as server:
            home = server.home
            segment = processes.postmaster(home / "pgdata").segment
            assert segment is not None
            server.kill()
        assert not home.exists()
        if Path("/proc/sysvipc/shm").exists():
            known = [int(line.split()[1]) for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
            assert segment not in known

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
    def test_goes_with_its_process(self, number):
        code = (
            "from encvec_store.localpg import LocalServer\nimport time\n"
            "with LocalServer() as server:\n"
            "    print(server.home, server.pid, flush=True)\n    time.sleep(60)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
        )
        with process:
            home, pid = process.stdout.readline().split()
            assert processes.alive(int(pid))
            process.send_signal(number)
            process.wait(20)
        assert processes.wait_until(lambda: not Path(home).exists() and not processes.alive(int(pid)), 20)

    def test_shared_goes_with_the_last(self):
        name = f"pytest-{os.getpid()}-{time.monotonic_ns()}"
        with LocalServer(share=name) as first:
            pid = first.pid
            with LocalServer(share=name) as second:
                assert (second.pid, second.dsn()) == (pid, first.dsn())
            assert first.pid == pid
            assert one(first.dsn(), "SELECT 1") == 1
            home = first.home
        assert not home.exists()
        assert not processes.alive(pid)

    def test_shared_by_processes_that_come_and_go(self, place):
        """Each finds one server or makes a new one; nobody meets the half of one that is just being removed."""
        code = (
            "import sys, psycopg, random, time\nfrom encvec_store.localpg import LocalServer\n"
            "for _ in range(3):\n"
            "    with LocalServer(share=sys.argv[1]) as server:\n"
            "        psycopg.connect(server.dsn()).close()\n"
            "    time.sleep(random.random() / 4)\n"
        )
        name = f"pytest-{os.getpid()}-{time.monotonic_ns()}"
        command = [sys.executable, "-c", code, name]
        environment = {**os.environ, "TMPDIR": str(place)}
        crowd = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        for each in crowd:
            _, errors = each.communicate(timeout=60)
            assert each.returncode == 0, errors
        assert processes.wait_until(lambda: list(place.iterdir()) == [], 10)


class TestKept:
    def test_data_survive_a_restart(self, kept):
        write(kept.dsn(), "DROP TABLE IF EXISTS t", "CREATE TABLE t AS SELECT 7 AS x")
        before = kept.pid
        kept.restart()
        assert kept.pid not in (None, before)
        assert one(kept.dsn(), "SELECT x FROM t") == 7
        assert one(kept.dsn(), "SHOW fsync") == "on"

    def test_url_stays_the_same_over_stop_and_start(self, kept):
        url = kept.dsn("postgres")
        assert kept.stop() is True
        assert kept.stop() is False
        with pytest.raises(LocalServerError, match="no server runs in"):
            LocalServer(kept.home).dsn()
        assert kept.start() is True
        assert kept.dsn("postgres") == url
        assert "@127.0.0.1:" in url

    def test_second_start_finds_the_first(self, kept):
        pid = kept.pid
        with LocalServer(kept.home) as again:
            assert again.pid == pid
            assert again.dsn() == kept.dsn()
            assert again.version == kept.version
        assert kept.pid == pid, "a context that found a server must not stop it"

    @pytest.mark.faults
    def test_killed_recovers(self, kept):
        write(kept.dsn(), "DROP TABLE IF EXISTS k", "CREATE TABLE k (x int)", "INSERT INTO k VALUES (1), (2)")
        with psycopg.connect(kept.dsn()) as connection:
            connection.execute("INSERT INTO k VALUES (3)")  # not committed
            kept.kill()
            assert kept.pid is None
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        assert (kept.home / "pgdata" / "postmaster.pid").exists()
        kept.restart()
        assert one(kept.dsn(), "SELECT sum(x) FROM k") == 3

    @pytest.mark.faults
    def test_only_the_postmaster_killed_recovers(self, kept):
        with psycopg.connect(kept.dsn()):
            os.kill(kept.pid, signal.SIGKILL)
            kept.restart()
        assert one(kept.dsn(), "SELECT 1") == 1

    @pytest.mark.faults
    def test_pid_file_that_names_another_program(self, kept):
        """After a reboot the number may belong to anything of the same user; PostgreSQL would refuse to start."""
        kept.kill()
        with subprocess.Popen(["sleep", "60"], cwd="/", **choose_account().options) as other:
            file = kept.home / "pgdata" / "postmaster.pid"
            (socket_lock,) = (kept.home / "sockets").glob(".s.PGSQL.*.lock")
            for each in (file, socket_lock):
                _, _, rest = each.read_text().partition("\n")
                each.write_text(f"{other.pid}\n{rest}")
            assert kept.pid is None
            assert kept.start() is True
            assert other.poll() is None
            other.kill()

    def test_port_taken_meanwhile(self, kept):
        port = json.loads((kept.home / "listen.json").read_text())["port"]
        kept.stop()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            kept.start()
        assert f":{port}/" not in kept.dsn()
        assert one(kept.dsn(), "SELECT 1") == 1

    def test_a_port_that_could_not_be_had_is_forgotten(self, place):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            busy = LocalServer(place / "db", port=other.getsockname()[1], timeout=2)
            with pytest.raises(LocalServerError, match="could not bind") as raised:
                busy.start()
        assert str(raised.value).count("starting PostgreSQL") == 1, "its last try is told, not all of them"
        with LocalServer(place / "db") as server:
            assert "@127.0.0.1" not in server.dsn()

    def test_sqlalchemy_understands_the_url(self, kept):
        for url in (kept.dsn(), socket_url(kept)):
            engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
            with engine.connect() as connection:
                assert connection.execute(text("SELECT 1")).scalar() == 1
            engine.dispose()


def socket_url(server):
    found = processes.running(server.home / "pgdata")
    return f"postgresql://postgres@/postgres?host={found.sockets}&port={found.port}&passfile={server.home}/pgpass"


class TestSecrets:
    def test_password_is_not_in_any_command_line(self, place, monkeypatch):
        """Not of initdb, the server, or any other program while a server is made."""
        calls = []
        popen = subprocess.Popen.__init__

        def spy(self, args, *rest, **options):
            calls.append((list(map(str, args)), dict(options.get("env") or {})))
            popen(self, args, *rest, **options)

        monkeypatch.setattr(subprocess.Popen, "__init__", spy)
        with LocalServer(place / "db", tcp=True) as server:
            secret = password(server)
            assert len(secret) >= 32
            assert secret not in server.dsn()
            assert {Path(command[0]).name for command, _ in calls} >= {"initdb", "postgres"}
            assert secret not in repr(calls)
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    assert secret.encode() not in each.read_bytes()
                except OSError:
                    continue
        everything = [path for path in place.rglob("*") if path.is_file()]
        holding = [path.name for path in everything if secret.encode() in path.read_bytes()]
        assert holding == ["pgpass"]

    @pytest.mark.parametrize("url", ["tcp", "socket"])
    def test_no_way_in_without_the_password(self, kept, url):
        dsn = restored(kept).dsn() if url == "tcp" else socket_url(kept)
        wrong = psycopg.conninfo.make_conninfo(dsn.partition("passfile")[0].rstrip("?&"), password="guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        stored = one(kept.dsn(), "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")
        assert stored.startswith("SCRAM-SHA-256$")

    def test_permissions(self, kept):
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [kept.home, *kept.home.iterdir()]}
        assert {modes[name] for name in ("pgpass", "server.log", "listen.json", "lock")} == {"0o600"}
        assert {modes[name] for name in ("pgdata", "sockets")} == {"0o700"}
        assert modes[kept.home.name] == ("0o711" if os.geteuid() == 0 else "0o700")

    @root_only
    def test_root_runs_it_as_somebody_else(self, kept):
        assert Path(f"/proc/{kept.pid}").stat().st_uid == choose_account().uid != 0
        status = Path(f"/proc/{kept.pid}/status").read_text()
        groups = next(line.split()[1:] for line in status.splitlines() if line.startswith("Groups:"))
        assert "0" not in groups
        assert (kept.home / "pgpass").stat().st_uid == 0, "who runs the server need not know the password"

    def test_lost_password_is_said(self, kept):
        passfile = kept.home / "pgpass"
        right = passfile.read_text()
        passfile.write_text(right.replace(password(kept), "wrong"))
        try:
            with pytest.raises(LocalServerError, match="refuses the password in its pgpass file"):
                LocalServer(kept.home).start()
        finally:
            passfile.write_text(right)
        assert kept.pid is not None


class TestRefusals:
    def test_error_shows_the_end_of_the_log(self, place):
        with pytest.raises(LocalServerError, match=r"(?s)ended while it started.*invalid value .*max_connections"):
            LocalServer(place / "db", settings={"max_connections": "many"}).start()
        assert LocalServer(place / "db").pid is None

    def test_failed_start_leaves_no_temporary_directory(self, monkeypatch):
        server = LocalServer(settings={"max_connections": "many"})
        with pytest.raises(LocalServerError, match="ended while it started"):
            server.start()
        assert not server.home.exists()

    def test_directory_of_something_else(self, place):
        (place / "db").mkdir()
        (place / "db" / "thesis.txt").write_text("")
        with pytest.raises(LocalServerError, match="holds other files"):
            LocalServer(place / "db").start()
        (place / "db" / "PG_VERSION").write_text("15")
        with pytest.raises(LocalServerError, match="a cluster that another program made"):
            LocalServer(place / "db").start()

    @root_only
    def test_directory_closed_to_the_user(self, place):
        (place / "closed").mkdir(mode=0o700)
        with pytest.raises(LocalServerError, match=r"may not enter \S+/closed: choose a directory"):
            LocalServer(place / "closed" / "db").start()
        assert (place / "closed").stat().st_mode & 0o777 == 0o700, "nobody's directory is opened up"

    def test_data_of_another_major_version(self, place):
        (place / "db" / "pgdata").mkdir(parents=True)
        (place / "db" / "pgdata" / "PG_VERSION").write_text("9.6\n")
        with pytest.raises(LocalServerError, match="no PostgreSQL 9 with pgvector, as this data needs"):
            LocalServer(place / "db").start()

    def test_without_psycopg(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ImportError, match=r"pip install 'encvec-store\[postgres\]'"):
            LocalServer().start()


def test_long_path_gets_a_short_socket(place):
    """A socket's path must fit in about 100 characters."""
    with LocalServer(place / ("long-" * 25) / "db") as server:
        short = (server.home / "sockets").readlink()
        assert one(server.dsn(), "SELECT 1") == 1
        server.restart()
        assert (server.home / "sockets").readlink() == short
        server.stop()
        for each in short.iterdir():
            each.unlink()
        short.rmdir()
        server.start()
        assert one(server.dsn(), "SELECT 1") == 1
        short = (server.home / "sockets").readlink()
    short.rmdir()
