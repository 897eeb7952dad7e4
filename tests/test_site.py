"""The site: pages and docstrings are built without a warning and without the network; the sidebar lists all pages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = """
import socket, sys
from sphinx.cmd.build import main

def refuse(*args):
    raise OSError("a build must not ask the network")

socket.socket.connect = socket.getaddrinfo = refuse
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_site(tmp_path):
    site = tmp_path / "site"
    strict = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", "docs", "--doctree-dir", tmp_path / "trees"]
    command = [sys.executable, "-c", BUILD, *strict, ".", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

    first = re.search(r"url=([^\"]+)", (site / "index.html").read_text(encoding="utf-8"))[1]
    home = (site / first).read_text(encoding="utf-8")
    sidebar = re.search(r'<div class="sidebar-tree">(.*?)</div>', home, re.DOTALL)[1]
    listed = set(re.findall(r'href="([^"#]+)"', sidebar))
    pages = {path.with_suffix(".html").name for path in ROOT.glob("docs/*.md")} - {"README.html", "guide.html"}
    assert pages | {"api.html"} <= listed
    api = (site / "docs/api.html").read_text(encoding="utf-8")
    for name in ("connect", "Collection.search", "Keyset.open_or_create", "errors.InputError", "migrate.upgrade"):
        assert f'id="encvec_store.{name}"' in api

    outside = re.compile(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]+"')
    found = {path.name: outside.findall(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert {name: urls for name, urls in found.items() if urls} == {}, "a page must fetch nothing from elsewhere"
