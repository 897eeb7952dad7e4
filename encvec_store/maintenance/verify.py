"""Check every record of a collection against its keys; imports handle, writing, records, crypto.envelope, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import BINDING, KEY_VERSION, PREFIX, TOKEN
from ..data.fields import Term
from ..data.records import decode_payload
from ..data.spaces import version_of
from ..engine.session import Handle
from ..engine.write import terms
from ..errors import AuthenticationError, KeyUnavailableError
from ..storage import Rows
from ..waits import offload

__all__ = ["Damage", "VerifyReport", "verify"]

_CHUNK = 2048
_ATTEMPTS = 3


@dataclass(frozen=True)
class Damage:
    """One record that failed, and which part of it."""

    row: int
    id: str | None
    """None where the payload could not be opened."""
    part: str
    """payload, vector, index vector, record token, filter terms, key version, or cell."""


@dataclass
class VerifyReport:
    """What `verify` found."""

    checked: int = 0
    damaged: list[Damage] = field(default_factory=list)
    unreadable: int = 0
    """Records under a key version that is disabled or destroyed: intact or not, nobody can say."""
    store: list[str] = field(default_factory=list)
    """Damage that the store sees itself, without keys."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found. Unreadable records are reported, not damage."""
        return not self.damaged and not self.store

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


def verify(handle: Handle, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Open every record and compare its parts with each other. See `Collection.verify`."""
    handle.refresh()
    report = VerifyReport(store=handle.backend.check() + handle.check())
    total = handle.backend.count()
    for rows in handle.pages(_CHUNK):
        damaged = _look(handle, rows, report)
        for _ in range(_ATTEMPTS):
            if not damaged:
                break
            # a record that was written or calibrated anew while we read its parts looks damaged: look again
            handle.refresh()
            damaged = _look(handle, np.unique([item.row for item in damaged]), VerifyReport())
        report.damaged += damaged
        if progress is not None:
            progress(len(rows), total)
    return report


def _look(handle: Handle, rows: Rows, report: VerifyReport) -> list[Damage]:
    """Count rows in the report, and return their damage."""
    known = {int(row): (space, token, have) for row, space, token, have in handle.backend.audit(rows)}
    vectors = _by_row(*handle.backend.vectors(rows, source=True))
    payloads = _by_row(*handle.backend.payloads(rows))
    index_vectors = _by_row(*handle.backend.index_vectors(rows)) if handle.config.index_dim else {}
    return offload(len(rows), _compare, handle, rows, report, known, vectors, payloads, index_vectors)


def _compare(
    handle: Handle,
    rows: Rows,
    report: VerifyReport,
    known: dict[int, tuple[int, bytes, set[tuple[str, Term]]]],
    vectors: dict[int, Any],
    payloads: dict[int, Any],
    index_vectors: dict[int, Any],
) -> list[Damage]:
    dead = handle.vault.dead
    damaged: list[Damage] = []
    for row in rows.tolist():
        if row not in known:
            continue  # deleted while we looked
        report.checked += 1
        space, token, have = known[row]
        envelope, payload = vectors.get(row), payloads.get(row)
        if payload is None or envelope is None:
            part = "payload" if payload is None else "vector"
            damaged.append(Damage(row, None, f"{part} missing"))
            continue
        prefix = payload[:PREFIX]
        version = int.from_bytes(prefix[KEY_VERSION], "big")
        if version in dead:
            if version_of(space) == version:
                report.unreadable += 1
            else:
                damaged.append(Damage(row, None, "key version"))
            continue
        try:
            id, metadata, _ = decode_payload(handle.vault.open_payload(payload))
        except AuthenticationError:
            damaged.append(Damage(row, None, "payload"))
            continue
        vector = _open_vector(handle, envelope, prefix)
        true = handle.vault.cipher(version).tokens([id])
        damaged.extend(
            Damage(row, id, part)
            for part in (
                "vector" if vector is None else None,
                None if true.tobytes() == token == prefix[:TOKEN] else "record token",
                _space_fault(handle, version, true, space),
                None if vector is None else _index_fault(handle, version, vector, index_vectors.get(row), prefix),
                None if _terms(handle, version, metadata) == have else "filter terms",
            )
            if part
        )
    return damaged


def _space_fault(handle: Handle, version: int, token: npt.NDArray[np.uint8], space: int) -> str | None:
    if version_of(space) != version:
        return "key version"
    return None if space == handle.vault.spaces(version, handle.config, token)[0] else "cell"


def _open_vector(handle: Handle, envelope: npt.NDArray[np.uint8], prefix: bytes) -> npt.NDArray[np.float32] | None:
    """Return the (1, dim) exact vector, or None where it does not open or belongs to another payload."""
    try:
        if not handle.vault.current(envelope[None], handle.config) or envelope[:PREFIX].tobytes() != prefix:
            return None
        return handle.vault.open_vectors(envelope[None])
    except (AuthenticationError, KeyUnavailableError):
        return None


def _index_fault(
    handle: Handle,
    version: int,
    vector: npt.NDArray[np.float32],
    index_vector: npt.NDArray[np.float32] | None,
    prefix: bytes,
) -> str | None:
    if index_vector is None:
        return "index vector" if handle.config.index_dim else None
    token, kept = np.frombuffer(prefix[:TOKEN], np.uint8), handle.config.precision.kept
    binding = handle.vault.cipher(version).bindings(token[None], kept(vector), kept(index_vector[None])).tobytes()
    return None if binding == prefix[BINDING] else "index vector"


def _terms(handle: Handle, space: int, metadata: dict[str, Any]) -> set[tuple[str, Term]]:
    """What the store should hold of a record's fields."""
    return {(name, term) for _, name, term in terms(handle.vault, handle.config, [metadata], version=space)}


def _by_row(rows: Rows, parts: Any) -> dict[int, Any]:
    return dict(zip(np.asarray(rows).tolist(), parts, strict=True))
