"""docker/: what can be known without an engine. The set-up itself runs for real, on the server of the tests."""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from encvec_store.localpg import LocalServerError, find_installation
from tests.kits.faults.proxy import Proxy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
SERVICES = COMPOSE["services"]


def test_ports_are_on_loopback_only():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned_and_the_same():
    images = {service["image"] for service in SERVICES.values() if "build" not in service}
    (image,) = images
    version = re.fullmatch(r"pgvector/pgvector:(\d+)\.(\d+)\.(\d+)-pg18-trixie(@sha256:[0-9a-f]{64})?", image)
    assert tuple(map(int, version.groups()[:3])) >= (0, 8, 4)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.11.14-slim-bookworm"}


def test_what_is_not_the_database_may_nothing():
    for name in ("init", "encvec"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == SERVICES["db"]["cap_drop"] == ["ALL"]
        assert service["user"].startswith("${ENCVEC_UID:-10001}")
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_secrets_are_files_and_nobody_gets_another_s():
    assert {name: secret["file"] for name, secret in COMPOSE["secrets"].items()} == {
        name: f"./secrets/{name}" for name in COMPOSE["secrets"]
    }
    assert {name: set(service["secrets"]) for name, service in SERVICES.items()} == {
        "db": {"postgres_password", "server.crt", "server.key"},
        "init": {"postgres_pgpass", "encvec_password", "ca.crt"},
        "encvec": {"encvec_pgpass", "keys.json", "passphrase", "ca.crt"},
    }
    ignored = subprocess.run(["git", "check-ignore", "docker/secrets/x", "docker/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            assert "/run/secrets/" in value or not re.search("PASS|SECRET|KEY", name), name


def test_clients_check_who_the_database_is():
    init, encvec = SERVICES["init"]["environment"], SERVICES["encvec"]["environment"]["ENCVEC_STORE"]
    asked = conninfo_to_dict(encvec)
    assert (asked["host"], asked["sslmode"], asked["sslrootcert"]) == ("db", "verify-full", "/run/secrets/ca.crt")
    assert (init["PGHOST"], init["PGSSLMODE"], init["PGSSLROOTCERT"]) == ("db", "verify-full", "/run/secrets/ca.crt")
    assert "sslmode=verify-full&sslrootcert=" in (DOCKER / "README.md").read_text(encoding="utf-8")


def test_the_server_gets_a_key_of_its_own_user():
    """The script of its container, with the programs of this machine in the place of the image's."""
    db = SERVICES["db"]
    assert db["entrypoint"][:2] == ["bash", "-euc"]
    assert "install -o postgres -g postgres -m 0600 /run/secrets/server.key" in db["entrypoint"][2]
    settings = dict(word[2:].split("=") for word in db["command"][1:])
    (folder,) = {os.path.dirname(settings[name]) for name in ("ssl_cert_file", "ssl_key_file")}
    assert settings["ssl"] == "on"
    assert any(mount.startswith(f"{folder}:") for mount in db["tmpfs"])
    script = db["entrypoint"][2].replace("$$", "$").partition("exec ")
    done = subprocess.run(
        ["bash", "-euc", f'install() {{ :; }}; exec() {{ shift; echo "$@"; }}; {"".join(script)}', "--", "a", "b c"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "a b c\n"


def test_shared_memory_holds_an_index_build():
    from encvec_store.storage.postgres import PostgresOptions

    assert (SERVICES["db"]["shm_size"], PostgresOptions().build_memory) == ("1gb", "512MB")


def test_compose_accepts_its_file(tmp_path):
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets", ".env"))
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True, check=False).returncode
        ):
            break
    else:
        pytest.skip("no docker compose here")
    arguments = [*command, "--file", "docker/compose.yaml", "--profile", "tools", "config", "--quiet"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# ------------------------------------------------------------------------------------------- set-up


def psql():
    found = shutil.which("psql")
    with contextlib.suppress(LocalServerError):
        found = found or shutil.which(str(find_installation().prefix / "bin" / "psql"))
    return found or pytest.skip("no psql here")


@pytest.fixture
def machine(pg_dsn, pg_server, tmp_path, monkeypatch):
    """A copy of docker/ whose up.sh meets the stand-in, and the database it is to set up."""
    guard = psycopg.connect(pg_server.dsn(pg_server.maintenance), autocommit=True)
    guard.execute("SELECT pg_advisory_lock(20261123)")  # roles are the whole server's, and tests may run side by side
    if guard.execute("SELECT 1 FROM pg_roles WHERE rolname = 'encvec'").fetchone():
        guard.close()
        pytest.skip("this server has a role encvec, which is not ours to change")
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in = programs / "docker"
    stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/kits/docker_here.py "$@"\n')
    stand_in.chmod(0o755)
    known = conninfo_to_dict(pg_dsn)
    place = f"host={quote(str(known.get('host', '127.0.0.1')), safe='')}&port={known.get('port', 5432)}"
    options = SERVICES["init"]["entrypoint"][1:]
    here = {
        "log": str(tmp_path / "log"),
        "psql": psql(),
        "psql options": [f"--file={folder}/init.sql" if o.startswith("--file=") else o for o in options],
        "admin": pg_dsn,
        "store": f"postgresql://encvec@/{known['dbname']}?{place}&passfile=SECRETS/encvec_pgpass",
    }
    monkeypatch.setenv("DOCKER_HERE", json.dumps(here))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PGPASSFILE", known.get("passfile", ""))
    for name in ("ENCVEC_PASSPHRASE", "ENCVEC_STORE", "ENCVEC_KEYS", "ENCVEC_DIR"):
        monkeypatch.delenv(name, raising=False)
    yield folder, pg_dsn, here
    with psycopg.connect(pg_dsn, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'encvec'").fetchone():
            connection.execute("DROP OWNED BY encvec CASCADE")
            connection.execute("DROP ROLE encvec")
    guard.close()


def up(folder):
    return subprocess.run([folder / "up.sh"], capture_output=True, text=True, timeout=240, check=False)


def test_up_makes_secrets_sets_up_the_database_and_searches(machine, tmp_path):
    folder, dsn, _here = machine
    first = up(folder)
    assert first.returncode == 0, first.stderr
    assert "ready." in first.stderr
    secrets = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert secrets.keys() == COMPOSE["secrets"].keys()
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "secrets").iterdir()} == {0o600}
    passwords = [secrets[name] for name in ("postgres_password", "encvec_password", "passphrase")]
    assert len(set(passwords)) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", password) for password in passwords)
    shown = first.stdout + first.stderr + (tmp_path / "log").read_text()
    assert not any(password in shown for password in passwords), "a secret was shown, or stood in a command line"

    with psycopg.connect(dsn) as connection:
        role = (
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolbypassrls, rolpassword FROM pg_authid WHERE rolname = %s"
        )
        *rights, password = connection.execute(role, ["encvec"]).fetchone()
        assert (any(rights), password[:14]) == (False, "SCRAM-SHA-256$")
        can = (
            "SELECT has_schema_privilege('encvec', 'public', 'CREATE'), has_database_privilege('encvec', %s, 'CREATE')"
        )
        assert connection.execute(can, [connection.info.dbname]).fetchone() == (False, False)
        owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'encvec'"
        assert connection.execute(owner).fetchone() == ("encvec",)

    again = up(folder)  # changes nothing, and works
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_text() for path in (folder / "secrets").iterdir()} == secrets
    (folder / "secrets" / "encvec_password").unlink()
    assert up(folder).returncode == 0, "a new password reaches the role"
    assert (folder / "secrets" / "encvec_password").read_text() != secrets["encvec_password"]


def test_the_certificate_is_good_for_its_names_and_no_others(machine):
    """Made by up.sh, shown to libpq, which checks it."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here")
    folder, dsn, _here = machine
    done = up(folder)
    assert done.returncode == 0, done.stderr
    secrets = folder / "secrets"
    with served_by_tls(secrets, dsn) as port:
        known = {**conninfo_to_dict(dsn), "hostaddr": "127.0.0.1", "port": port}
        ours = {**known, "sslmode": "verify-full", "sslrootcert": str(secrets / "ca.crt")}
        for host in ("db", "localhost", "127.0.0.1"):
            with psycopg.connect(**{**ours, "host": host}) as connection:
                assert connection.pgconn.ssl_in_use
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            psycopg.connect(**{**ours, "host": "elsewhere"})
        before = (secrets / "ca.crt").read_bytes()
        (secrets / "server.crt").unlink()
        assert up(folder).returncode == 0
        assert (secrets / "ca.crt").read_bytes() != before, "its key is gone, so there is a new authority"
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            psycopg.connect(**{**ours, "host": "localhost"})


@contextlib.contextmanager
def served_by_tls(secrets, dsn):
    """Speak TLS before a PostgreSQL that was built without it; yields the port."""
    opened = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(secrets / "server.crt", secrets / "server.key")

    def forward(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def serve():
        with Proxy(dsn) as plain, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                opened.append(client)
                client.recv(8)  # SSLRequest
                client.sendall(b"S")
                with contextlib.suppress(ssl.SSLError):
                    client = context.wrap_socket(client, server_side=True)
                    server = socket.create_connection(("127.0.0.1", int(conninfo_to_dict(plain.dsn)["port"])))
                    opened.extend([client, server])
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=forward, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for each in opened:
        each.close()


def test_init_says_what_is_wrong(machine, tmp_path):
    _folder, dsn, here = machine
    command = [here["psql"], *here["psql options"], "--dbname", dsn]
    environment = {name: value for name, value in os.environ.items() if name != "ENCVEC_PASSWORD_FILE"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "ENCVEC_PASSWORD_FILE names no file" in done.stderr) == (3, True)
    (tmp_path / "empty").write_text("")
    for path in ("empty", "missing"):
        environment["ENCVEC_PASSWORD_FILE"] = str(tmp_path / path)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, "has no password in it" in done.stderr) == (3, True), done.stderr
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'encvec'").fetchone() is None
