"""The house: version, exported names, what is shipped, the lock file, and that the import rules bite."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
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
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_version_is_one():
    assert encvec_store.__version__ == PROJECT["version"] == importlib.metadata.version("encvec-store")


def test_exported_names_are_pinned():
    classes = ["Calibration", "Collection", "Hit", "Keyset", "Record", "Store", "VerifyReport"]
    names = [*classes, "__version__", "aio", "connect", "errors"]
    assert sorted(encvec_store.__all__) == names
    assert [name for name in names if not hasattr(encvec_store, name)] == []


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
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import encvec_store"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_fits_on_a_few_screens(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.parametrize("line", sorted(set(DECLARED)))
def test_lock_pins_what_is_declared(line):
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE))
    wanted = Requirement(line)
    assert Version(locked[canonicalize_name(wanted.name)]) in wanted.specifier, "run `make lock`"


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
