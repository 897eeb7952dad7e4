"""Options of the `postgresql:` store and the URL that may carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...errors import UriError
from ...runtime.gpus import DEVICES
from ...runtime.urls import Url, opening_options, parse

__all__ = ["INDEX_KINDS", "STORAGES", "PostgresOptions", "database_of", "parse_url"]

DRIVERS = ("", "psycopg", "psycopg_async")
"""What may follow `postgresql+` in a URL, as SQLAlchemy writes it."""
INDEX_KINDS = ("auto", "none", "hnsw", "ivfflat", "bit", "lists")
STORAGES = ("auto", "float32", "float16")
_RANKED = (
    "storage",
    "index_above",
    "index_in_search",
    "m",
    "ef_construction",
    "ef_search",
    "bit_oversample",
    "lists",
    "probes",
    "build_memory",
)
"""Options of pgvector's indexes. Sealed collections have none of these."""
_MOST_DIM = {"float32": 2_000, "float16": 4_000, "bit": 64_000}
"""The most coordinates that pgvector can index."""


@dataclass(frozen=True)
class PostgresOptions:
    """How to use the database. Each option may be in the URL (`?index=hnsw&m=24`) or a keyword argument."""

    schema: str = "encvec"
    """The schema of the tables."""
    create: bool = True
    """Create the extension, the schema and the tables if they are missing."""
    index: str = "auto"
    """`none` compares all records; `hnsw`, `ivfflat` and `bit` (HNSW over the signs) index from the start; `auto` is
    `hnsw` above `index_above` records. `lists` is `auto`, and keeps the codes of sealed collections in the store, where
    searches fetch what they need."""
    storage: str = "auto"
    """How an index keeps vectors: `float32`, `float16` (halfvec), or `auto`: float16 above 2,000 coordinates."""
    index_above: int = 5_000
    """`auto` compares all records up to this many of a key version."""
    index_in_search: int = 50_000
    """A search builds a missing index for at most this many records; above, it compares all until `flush()` does."""
    m: int = 16
    """Links of each HNSW node."""
    ef_construction: int = 64
    """Nodes kept while a record is added to the HNSW graph: more is slower and more accurate."""
    ef_search: int = 100
    """Least HNSW nodes kept during a search; never below the candidates asked for, at most 1,000."""
    bit_oversample: int = 5
    """`bit`: how many records, for each candidate, the server compares by their whole index vectors."""
    lists: int = 0
    """IVFFlat lists; 0 means one for each thousand records, or their square root above a million."""
    probes: int = 0
    """IVFFlat lists searched; 0 means an eighth of them, at least ten: noise spreads neighbours over lists."""
    build_memory: str = "512MB"
    """`maintenance_work_mem` while an index is built. A graph that fits in it is built several times faster."""
    lock_timeout: float = 30.0
    """Seconds to wait for another writer."""
    statement_timeout: float = 0.0
    """Seconds that a read may take; 0 means that the server decides."""
    pool_size: int = 10
    """Most connections of our own pool."""
    pool_timeout: float = 10.0
    """Seconds to wait for a free connection."""
    row_security: bool = False
    """Turn row-level security on: PostgreSQL shows each tenant only its own rows. It is never turned off again."""
    device: str = "cpu"
    """Where records are encrypted: `cpu`, `cuda`, or `auto`: `cuda` if there is a GPU."""
    pooler: bool | None = None
    """True if a pooler in transaction mode (PgBouncer) stands before the server: nothing may outlive a transaction.
    None finds out if there is a pooler, and takes it for one of that mode. False is for a pooler in session mode:
    indexes are built without blocking writers."""

    def __post_init__(self) -> None:
        _one_of("index", self.index, INDEX_KINDS)
        _one_of("storage", self.storage, STORAGES)
        _one_of("device", self.device, DEVICES)
        bounds = {
            "m": (2, 100),
            "ef_construction": (4, 1000),
            "ef_search": (1, 1000),
            "bit_oversample": (1, 1000),
            "lists": (0, 32_768),
            "probes": (0, 32_768),
            "index_above": (0, 1 << 62),
            "index_in_search": (0, 1 << 62),
            "pool_size": (1, 10_000),
            "lock_timeout": (0.001, 86_400),
            "statement_timeout": (0, 86_400),
            "pool_timeout": (0.001, 86_400),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise UriError(f"postgresql store: {name} must be from {low} to {high}, got {getattr(self, name)}")
        if self.ef_construction < 2 * self.m:
            raise UriError(f"postgresql store: ef_construction must be at least twice m, got {self.ef_construction}")
        if not re.fullmatch(r"\d{1,9}(kB|MB|GB|TB)", self.build_memory):
            raise UriError(f"postgresql store: build_memory must be a size such as 512MB, got {self.build_memory!r}")
        # the server cuts names off at 63 bytes; our own are shorter
        if not 1 <= len(self.schema.encode()) <= 63 or set(self.schema) & {"\0", "%"} or self.schema.startswith("pg_"):
            raise UriError(
                "postgresql store: schema must have 1 to 63 bytes, no % or NUL, and not begin with pg_,"
                f" got {self.schema!r}"
            )

    def storage_for(self, dim: int, *, half: bool) -> str:
        """Return how an index of so many coordinates keeps them: float32, float16 or bit.

        `half` means that the records themselves have float16.
        """
        if self.index == "bit":
            return "bit"
        if half:
            return "float16"
        if self.storage == "auto":
            return "float16" if dim > _MOST_DIM["float32"] else "float32"
        return self.storage

    @property
    def ranked(self) -> tuple[str, ...]:
        """The options that differ from their defaults and are for server-ranked schemes only."""
        given = [each.name for each in fields(self) if getattr(self, each.name) != each.default]
        return tuple(name for name in given if name in _RANKED or (name == "index" and self.index == "bit"))

    def kind_for(self, records: int, dim: int, *, half: bool) -> str:
        """Return the kind of index for so many records of one key version: none, hnsw, ivfflat or bit."""
        if not dim or dim > _MOST_DIM[self.storage_for(dim, half=half)] or not records:
            return "none"
        if self.index in ("auto", "lists"):
            return "hnsw" if records > self.index_above else "none"
        return self.index

    def graph_memory(self, records: int, dim: int, *, half: bool) -> int:
        """Return the megabytes that pgvector 0.8 needs to build an HNSW graph in memory: measured, plus 4%."""
        vector = {"float32": 4 * dim, "float16": 2 * dim, "bit": dim // 8}[self.storage_for(dim, half=half)]
        return 1 + records * (vector + 220 + 33 * self.m) // 10**6

    def lists_for(self, records: int) -> int:
        """Return how many IVFFlat lists suit so many records."""
        return self.lists or max(16, records // 1000 if records <= 1_000_000 else int(records**0.5))

    def probes_for(self, records: int) -> int:
        """Return how many of these lists a search reads."""
        return self.probes or max(10, self.lists_for(records) // 8)


def parse_url(url: str, given: Mapping[str, Any]) -> tuple[str, str, PostgresOptions]:
    """Split a URL into what libpq connects to, the URL without secrets, and our options; keyword arguments win.

    Raises:
        UriError: no PostgreSQL URL, or an unknown or malformed option.
    """
    read = _read_url(url)
    known = {option.name: option.default for option in fields(PostgresOptions)}
    ours: dict[str, Any] = {}
    for name, text in read.query:
        if name in known and name in ours:
            raise UriError(f"postgresql store: option {name} is given twice")
        if name in known:
            ours[name] = text
    read = replace(read, query=tuple(item for item in read.query if item[0] not in known))
    listed = ", ".join(sorted(known))
    target = _checked_target(read, f"; our own options are {listed}")
    values: dict[str, Any] = {}
    for name, value in (*ours.items(), *given.items()):
        if known.get(name, MISSING) is MISSING:
            raise UriError(f"postgresql store: unknown option {name!r}; the options are {listed}")
        values[name] = _converted(name, value, bool if known[name] is None else type(known[name]))
    return target, read.shown(), PostgresOptions(**values)


def _read_url(url: str) -> Url:
    """Take the URL of a PostgreSQL database apart, as libpq or SQLAlchemy writes it; its scheme becomes postgresql.

    Raises:
        UriError: it is no such URL, or names a driver other than psycopg. Shows nothing that may be a password.
    """
    try:
        read = parse(opening_options(url)[0])
    except ValueError as error:
        if not re.match(r"[A-Za-z0-9+.-]+://", url):
            raise UriError(
                "a PostgreSQL URL must be like postgresql://user@host/database, got another string"
            ) from None
        raise UriError(f"malformed PostgreSQL URL: {error}") from None
    dialect, _, driver = read.scheme.partition("+")
    if dialect not in ("postgresql", "postgres"):
        raise UriError(f"a PostgreSQL URL must be like postgresql://user@host/database, got {read.scheme}:...")
    if driver not in DRIVERS:
        raise UriError(
            f"the driver of a PostgreSQL URL must be psycopg (version 3), got {driver}: write postgresql://... or"
            " postgresql+psycopg://..."
        )
    return replace(read, scheme="postgresql")


def database_of(url: str) -> tuple[str, str]:
    """Return the URL of a database as libpq takes it, and without secrets. Raises UriError."""
    read = _read_url(url)
    return _checked_target(read), read.shown()


def _checked_target(read: Url, hint: str = "") -> str:
    """Return a URL with its secrets, as libpq takes it.

    Raises:
        UriError: libpq knows no such parameter, or cannot read the URL.
    """
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    for name, _ in read.query:
        if name not in known:
            raise UriError(f"PostgreSQL URL: unknown option {name!r}{hint}")
    target = read.whole()
    try:
        conninfo_to_dict(target)
    except psycopg.Error:  # its words repeat parts of the URL
        raise UriError("malformed PostgreSQL URL: libpq cannot read it") from None
    return target


def _converted(name: str, value: Any, kind: type) -> Any:
    if kind is bool:
        switches = {"1": True, "0": False, "true": True, "false": False}
        if str(value).lower() not in switches:
            raise UriError(f"postgresql store: {name} must be 1 or 0, got {value!r}")
        return switches[str(value).lower()]
    try:
        return kind(value)
    except (TypeError, ValueError):
        what = {int: "an integer", float: "a number"}.get(kind, "a text")
        raise UriError(f"postgresql store: {name} must be {what}, got {value!r}") from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UriError(f"postgresql store: {name} must be one of {', '.join(allowed)}, got {value!r}")
