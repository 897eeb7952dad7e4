"""`encvec db`: up, down, url, status, their exit codes and their JSON."""

import json
import os
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from encvec_store import migrate
from encvec_store.cli.db import db
from encvec_store.errors import StoreError, StoreUnreachableError


@pytest.fixture
def run(place):
    """Run `encvec db` on one directory."""

    def run(*arguments):
        return CliRunner().invoke(db, [arguments[0], "--data", str(place / "db"), *arguments[1:]])

    return run


def test_walk(run, place):
    missing = run("url")
    assert isinstance(missing.exception, StoreUnreachableError)
    assert "start it with `encvec db up`" in str(missing.exception)
    assert run("status").exit_code == 1
    assert run("down").exit_code == 0

    first = run("up", "--json")
    assert first.exit_code == 0, first.output
    made = json.loads(first.stdout)
    assert made["started"] is True
    assert made["running"] is True
    assert Path(made["log"]).is_file()

    again = json.loads(run("up", "--json").stdout)
    assert again == {**made, "started": False}
    plain = run("up")
    assert "runs already" in plain.stderr
    assert plain.stdout.strip() == made["url"] == run("url").stdout.strip()
    assert json.loads(run("url", "--json").stdout) == {"url": made["url"]}
    with psycopg.connect(made["url"]) as connection:
        assert connection.info.dbname == "encvec"
        assert connection.execute("SELECT '[3]'::vector").fetchone() == ("[3]",)

    status = run("status", "--json")
    assert status.exit_code == 0
    assert json.loads(status.stdout)["pid"] == made["pid"]
    assert "running  yes" in run("status").stdout
    secret = (place / "db" / "pgpass").read_text().strip().rpartition(":")[2]
    assert secret not in first.output + plain.output + status.output + made["url"]
    assert "listens as before" in run("up", "--tcp").stderr

    assert json.loads(run("down", "--json").stdout)["stopped"] is True
    assert json.loads(run("down", "--json").stdout)["stopped"] is False
    down = run("status", "--json")
    assert (down.exit_code, json.loads(down.stdout)["running"]) == (1, False)
    with pytest.raises(StoreUnreachableError, match=r"^cannot reach .*No such file or directory\. Is the server"):
        migrate.current(made["url"])
    assert run("down").stderr == f"encvec: no server runs in {place / 'db'}\n"


def test_tcp_is_kept(run):
    url = run("up", "--tcp").stdout.strip()
    assert "@127.0.0.1:" in url
    run("down")
    assert run("up").stdout.strip() == url
    run("down")


def test_usage(run):
    assert run("up", "--port", "0").exit_code == 2
    assert run("up", "--port", "5000", "--no-tcp").exit_code == 2
    assert CliRunner().invoke(db, []).exit_code == 2
    assert CliRunner().invoke(db, ["start"]).exit_code == 2


def test_without_psycopg(run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    failed = run("up").exception
    assert isinstance(failed, StoreError)
    assert "pip install 'encvec-store[postgres]'" in str(failed)


def test_default_directory(monkeypatch):
    from encvec_store.cli.db import _default_data

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _default_data() == Path("/var/lib/encvec-store/postgres")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert _default_data() == Path("/somewhere/encvec-store/postgres")
