"""What the documents tell people to type: it is run, or parsed at least; and every link leads somewhere."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import groupby
from pathlib import Path

import click
import psycopg
import pytest

import encvec_store as ev
from encvec_store.cli.app import cli
from encvec_store.cli.app import run as cli_run
from encvec_store.localpg import LocalServer
from tests.localpg.conftest import place  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/*.md"), *ROOT.glob("benchmarks/*.md")]
)
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """Return (language, content) of each fenced block, in order."""
    return [(language, content) for _, language, content in BLOCK.findall(text)]


def chapter(page, title):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


POSTGRES = blocks(chapter("docs/postgresql.md", "A first walk"))


def in_one_shell(parts):
    """Return the script of somebody who types all that: Python as told, in `python` started from the same shell."""
    return "".join(f"python - <<'PYTHON'\n{text}PYTHON\n" if language == "python" else text for language, text in parts)


@pytest.mark.slow
def test_the_postgresql_chapter_word_for_word(place):  # noqa: F811
    """From an empty folder to a filtered search, but for the installation: that needs a network and is here already."""
    shells = [text for language, text in POSTGRES if language == "sh"]
    assert "pip install" in shells[0]
    typed = [part for part in POSTGRES if part[0] in ("sh", "python") and part[1] != shells[0]]
    (shown,) = [text for language, text in POSTGRES if not language]
    (place / "benchmarks").symlink_to(ROOT / "benchmarks")  # a clone has it; the rest comes from the installation
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ENCVEC_", "PG"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=in_one_shell(typed),
        cwd=place,
        env=clean | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ENCVEC_DB": str(place / "pg")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, commands = done.stdout.partition(shown)
    assert commands, f"the page shows other hits than these: {done.stdout}"
    assert (place / "trial/passphrase").read_text().strip() not in done.stdout + done.stderr
    for line in shown.splitlines():
        assert line.split(maxsplit=1)[1][:50] in commands, "the command line finds what Python found"
    for told in ("10,003 records", r"questions +10003 +0 +0\n", r"revision +\d+\n", "usable +yes\n"):
        assert re.search(told, commands), commands
    assert "encvec: stopped" in done.stderr
    assert not LocalServer(place / "pg").pid


def test_its_extras_are_what_make_installs():
    wanted = set(re.search(r"\[(.*)\]", POSTGRES[0][1])[1].split(","))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    made = re.search(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert wanted <= set(extras) & set(made.split(","))


def test_what_a_superuser_runs_is_enough(place, capfd):  # noqa: F811
    """On an empty server: then a role without rights makes the tables by itself, and a DBA's SQL makes them too."""
    (statements,) = [text for language, text in POSTGRES if language == "sql"]
    with LocalServer(place / "pg") as server:
        database = "postgres"
        for line in statements.splitlines():
            match line.split():
                case ["\\connect", name]:
                    database = name
                case ["\\password", role]:
                    execute(server, database, f"ALTER ROLE {role} PASSWORD 'not so secret'")
                case _:
                    execute(server, database, line)
        url = re.sub(r"passfile=[^&]*", "password=not%20so%20secret", server.dsn(database)).replace("postgres@", "app@")
        with ev.connect(url, keyset=ev.Keyset.create("memory:")) as store:
            made = store.collection("docs", dim=3)
            made.upsert(["a"], [[1, 0, 0]])
            assert made.search([1, 0, 0], k=1)[0].id == "a"

        server.ensure_database("by_hand")
        url = server.dsn("by_hand")
        capfd.readouterr()
        assert cli_run(["db", "sql", "--with-extension", "--store", url]) == 0
        execute(server, "by_hand", capfd.readouterr().out)
        assert cli_run(["db", "current", "--store", url]) == 0


def execute(server, database, text):
    with psycopg.connect(server.dsn(database), autocommit=True) as connection:
        connection.execute(text)


def run_in(folder, text, command):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ENCVEC_", "PG"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, input=text, cwd=folder, env=clean | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_example_runs_twice(tmp_path):
    """In an empty folder, word for word, and again over what it left there; it prints what the README shows."""
    _, (language, text), (_, shown), *_ = blocks(chapter("README.md", "Use it"))
    assert language == "python"
    assert [run_in(tmp_path, text, [sys.executable]) for _ in range(2)] == [shown, shown]


def test_the_quickstart(tmp_path):
    """All its Python in one go, and then its commands, but for the installation."""
    found = blocks((ROOT / "docs/quickstart.md").read_text(encoding="utf-8"))
    run_in(tmp_path, "".join(text for language, text in found if language == "python"), [sys.executable])
    told = run_in(tmp_path, [text for language, text in found if language == "sh"][1], ["bash", "-euo", "pipefail"])
    for line in (r"questions +\d+ +384", "another text", r"questions +\d+ +0 +0"):
        assert re.search(line, told), told


# ------------------------------------------------------------------------------------- all the pages


def python_blocks():
    for page in PAGES:
        for number, (language, text) in enumerate(blocks(page.read_text(encoding="utf-8"))):
            if language == "python":
                yield pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")


@pytest.mark.parametrize("text", list(python_blocks()))
def test_python_is_python(text):
    compile(text, "a page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def calls(script):
    """Return the arguments of each `encvec` in a script."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for signs, words in groupby(lexer, lambda word: not word.strip("();<>|&")):
            words = list(words)
            if not signs and "encvec" in words:  # maybe in a container: docker compose run encvec ...
                yield words[len(words) - words[::-1].index("encvec") :]


def commands():
    for page in PAGES:
        for language, text in blocks(page.read_text(encoding="utf-8")):
            if language == "sh":
                for words in calls(text):
                    yield pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_and_their_options_exist(words):
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group) and not words[0].startswith("-"):  # `encvec bench` is a command, too
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, context, name)
    command.make_context(name, words, context.parent)


def slug(head):
    return re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    return {slug(head) for head in re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_list_of_chapters_lists_them_all(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    if listed := re.findall(r"\[[^\]]+\]\(#([^)]+)\)", text.partition("\n## ")[0]):
        assert listed == [slug(head) for head in re.findall(r"^## (.*)$", text, re.MULTILINE)]


def test_the_index_lists_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md", "guide.md"}
    assert pages - set(re.findall(r"\]\(([\w-]+\.md)\)", index)) == set()


PLACES = re.findall(
    r"`([\w/]+\.py):(\d+)`\s+\(`([^`]+)`\)", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("path", "line", "text"), PLACES, ids=[f"{path}:{text}" for path, _, text in PLACES])
def test_architecture_names_the_right_lines(path, line, text):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    assert text in lines[int(line) - 1], f"it is in {[n for n, one in enumerate(lines, 1) if text in one]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_wrapped(page):
    """Prose ends at 100 columns. Tables, code, pictures and addresses are as long as they are."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8")).splitlines()
    prose = [line for line in prose if len(line) > 100 and not line.startswith(("    ", "![", "#", "<"))]
    assert [line for line in prose if line.lstrip()[0] != "|" and len(line.split()) > 1 and "](" not in line] == []


GLOSSARY = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^\| (?!term|---)([^|]+) \| ", GLOSSARY, re.MULTILINE)
RETIRED = (
    "vault",
    "Vault",
    "class Handle",
    "class Ordinals",
    "RowList",
    "rowlist",
    "class Slots",
    "artefact",
    "tombstone",
    "spaces",
)
"""Names that were this project's own once: the glossary has others for the same things."""


@pytest.fixture(scope="module")
def words():
    """The package's code and the pages, names split into words."""
    pages = [page for page in ROOT.glob("docs/*.md") if page.name != "glossary.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*ROOT.glob("encvec_store/**/*.py"), *pages])
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("_", " ").lower()


@pytest.mark.parametrize("term", [term.strip(" `") for row in TERMS for term in row.split(",")])
def test_the_glossary_explains_words_that_are_used(words, term):
    assert re.search(rf"\b{re.escape(term.replace('_', ' ').lower())}", words)


@pytest.mark.parametrize("name", RETIRED)
def test_names_that_were_given_up_do_not_come_back(name):
    sources = set(ROOT.glob("encvec_store/**/*.py"))
    if name in ("vault", "Vault"):  # here they are names of products
        named = ("cli/keys.py", "keys/registry.py", "keys/wrappers/vault.py", "keys/wrappers/azure.py")
        sources -= {ROOT / "encvec_store" / path for path in named}
    assert [str(path) for path in sorted(sources) if re.search(rf"\b{name}", path.read_text(encoding="utf-8"))] == []
