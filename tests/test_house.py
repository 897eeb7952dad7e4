"""The house: version, exported names, what is shipped, the lock file, and that the import rules bite."""

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import encvec_store

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "encvec_store").rglob("*.py"))
# torch and CUDA are gigabytes: they are installed apart, and no lock pins them
LOCKED = [needs for name, needs in PROJECT["optional-dependencies"].items() if name != "gpu"]
DECLARED = [*PROJECT["dependencies"], *chain.from_iterable(LOCKED)]
LOCKS = [(ROOT / name).read_text("utf-8") for name in ("requirements.lock", "requirements-integrations.lock")]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def test_version_is_one():
    assert encvec_store.__version__ == PROJECT["version"] == importlib.metadata.version("encvec-store")


def test_exported_names_are_pinned():
    classes = ["Calibration", "Collection", "Hit", "Keyset", "Record", "Rekeyed", "ResultList", "SchemeChange", "Store"]
    classes.append("VerifyReport")
    names = [*classes, "__version__", "aio", "connect", "errors"]
    assert sorted(encvec_store.__all__) == names
    assert [name for name in names if not hasattr(encvec_store, name)] == []


LOW_LEVEL = {"cli.app", "cli.common", "cli.output", "cli.bench_data"}
"""Modules that docs/architecture.md names beside the faces: commands of other packages build on them."""
INSIDE = {
    "benchmarks/walk.py": "times functions inside a search",
    "tests/localpg/test_cli.py": "runs `encvec db` with the servers of this room",
}
"""Files that may reach further, and why. Tests of a room may import any module of it; known answers, of all."""


def reaches(path: Path) -> list[str]:
    """List the imports of a file that go past the faces of the package."""
    here = path.relative_to(ROOT)
    own = here.parts[1] if len(here.parts) > 2 else ""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.level and here.parts[0] != "encvec_store"):
            continue
        base = here.parts[: len(here.parts) - node.level] if node.level else ()
        module = ".".join((*base, *([node.module] if node.module else [])))
        name, _, rest = module.partition(".")
        if name != "encvec_store" or not rest or rest.split(".")[0] in (own, "lab") or rest in LOW_LEVEL:
            continue
        face = importlib.import_module(module)
        is_face = face.__file__.endswith("__init__.py") or "." not in rest
        given = set(getattr(face, "__all__", ())) if is_face else set()
        if here.parts[0] == "tests":  # a test may take a whole module, to make its limits small
            given |= {of.name for of in node.names if hasattr(face, "__path__") and find_spec(f"{module}.{of.name}")}
        found += [f"{module}.{of.name}" for of in node.names if of.name not in given]
    return found


def test_lab_benchmarks_and_tests_use_the_faces():
    """A package's `__all__` is its face. Only tests of a room look behind it."""
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("encvec_store/lab/**/*.py")]
    files = [path for path in files if not {"kat", ".venv-peers", ".venv-faces"} & set(path.parts)]
    found = {str(path.relative_to(ROOT)): reaches(path) for path in files}
    assert {path for path, names in found.items() if names} == set(INSIDE), found


def test_types_are_shipped():
    assert resources.files("encvec_store").joinpath("py.typed").is_file()


def test_command_is_there():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="encvec")
    assert callable(command.load())


def test_import_needs_no_extra():
    """The core must import where only the core dependencies are installed."""
    blocked = [
        "alembic",
        "click",
        "rich",
        "pyarrow",
        "h5py",
        "matplotlib",
        "psutil",
        "psycopg",
        "greenlet",
        "pytest",
        "hypothesis",
        "torch",
        "cupy",
        "scipy",
        "PIL",
    ]
    # names are imported at first use
    use = "import encvec_store; [getattr(encvec_store, name) for name in encvec_store.__all__]"
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_fits_on_a_few_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("line", sorted(set(DECLARED)))
def test_lock_pins_what_is_declared(line):
    locked = dict(PIN.findall("\n".join(LOCKS)))
    wanted = Requirement(line)
    assert Version(locked[canonicalize_name(wanted.name)]) in wanted.specifier, "run `make lock`"


def test_no_package_is_in_both_locks():
    """The environment of frameworks lies on top of the other, and must change none of its packages."""
    (first, second) = ({name for name, _ in PIN.findall(lock)} for lock in LOCKS)
    assert first & second == set()


@pytest.mark.parametrize(
    ("rule", "added"),
    [
        ("backends-blind", {"storage/protocol.py": "import encvec_store.crypto"}),
        ("backends-blind", {"storage/protocol.py": "import encvec_store.keys"}),
        ("backends-blind", {"storage/protocol.py": "import cryptography.exceptions"}),
        (
            "backends-blind",
            {"storage/protocol.py": "from ..data import fields", "data/fields.py": "from .. import crypto"},
        ),
        ("one-way", {"errors.py": "import encvec_store.store"}),
        ("one-way", {"stray.py": "# a module that nobody gave a place"}),
        ("crypto-in-its-room", {"store.py": "import cryptography.exceptions"}),
        ("adapters-on-the-public-api", {"integrations/langchain.py": "from ..engine import read"}),
    ],
    ids=str,
)
def test_import_rules_bite(tmp_path, rule, added):
    """Break a rule in a copy: the linter, content before, must object."""
    package = tmp_path / "encvec_store"
    shutil.copytree(ROOT / "encvec_store", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def lint():
        code = "from importlinter.cli import lint_imports_command as command; command()"
        options = ["--no-logo", "--no-cache", "--contract", rule]
        return subprocess.run(
            [sys.executable, "-c", code, *options], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    before = lint()
    assert before.returncode == 0, before.stdout + before.stderr
    for path, line in added.items():
        with (package / path).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    after = lint()
    assert after.returncode == 1, after.stdout + after.stderr
    assert re.search(r"BROKEN|not listed", after.stdout), after.stdout


def test_no_class_name_twice():
    """One name for one thing: who searches for a class finds one."""
    names = [name for path in SOURCES for name in re.findall(r"^class ([A-Za-z]\w*)", path.read_text("utf-8"), re.M)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_tests_mirror_the_rooms():
    """A folder of tests has the name of what it tests: a room of the package, or a folder beside it."""
    rooms = {path.parent.name for path in (ROOT / "encvec_store").glob("*/__init__.py")}
    beside = {"migrations", "docker", "benchmarks"}
    others = {"stores", "faults", "kat", "kits"}  # CONTRIBUTING.md says what they are
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.rglob("*.py"))}
    assert folders - others == folders & (rooms | beside)
    assert sorted(others - folders) == []
    kits = [*(ROOT / "tests").glob("*/**/*kit*.py")]
    assert [path for path in kits if "kits" not in path.parts] == [], "kits lie in tests/kits"
    tests = [*(ROOT / "tests/kits").rglob("test_*.py")]
    assert tests == [], "kits are no tests"
