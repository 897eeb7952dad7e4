"""Checks every record of a collection with its keys."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import KEY_VERSION, PREFIX, TOKEN
from ..data.arrays import Rows
from ..data.fields import Term
from ..data.ids import Id
from ..data.partitions import version_of
from ..engine.lookup import pages
from ..engine.session import Session
from ..errors import AuthenticationError, KeyUnavailableError
from ..indexes.protocol import KeepsFiles
from ..runtime.concurrency import offload
from ..sealed_index import check, saved
from ..sealing.codec import RecordCodec, of_one_write
from .repeats import RepeatedIds
from .staging import standing

__all__ = ["Damage", "VerifyReport", "verify"]

_CHUNK = 2048
_ATTEMPTS = 3


@dataclass(frozen=True)
class Damage:
    """One damaged part of a record."""

    row: int
    id: Id | None
    """None if the payload could not be opened."""
    part: str
    """payload, vector, index vector, record token, filter terms, key version, cell, or "id given twice"."""


@dataclass
class VerifyReport:
    """The result of `verify`."""

    checked: int = 0
    damaged: list[Damage] = field(default_factory=list)
    unreadable: int = 0
    """Records under a disabled or destroyed key version. Those under a disabled one are authenticated, but nothing of
    them is shown; those under a destroyed one cannot be checked."""
    store: list[str] = field(default_factory=list)
    """Damage that the store finds itself, without keys, and of the index over opened vectors."""
    notes: list[str] = field(default_factory=list)
    """What is no damage, but good to know: kept indexes that are older than their records, a change not finished."""

    @property
    def ok(self) -> bool:
        """True if no damage was found. Unreadable records are no damage."""
        return not self.damaged and not self.store

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        report = {"ok": self.ok, **asdict(self)}
        for damage in report["damaged"]:
            damage["id"] = str(damage["id"]) if isinstance(damage["id"], uuid.UUID) else damage["id"]
        return report


def verify(session: Session, progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Open every record and check that its parts belong together. See `Collection.verify`."""
    session.refresh()
    report = VerifyReport(store=session.records.check() + session.index.check() + session.check())
    if not session.config.index_dim:
        report.store += check(session, session.config.metric.name, session.config.dim)
    report.notes = _older(session)
    if (change := standing(session, session.config)) is not None:
        report.notes.append(change["note"])
    total, names = session.records.count(), RepeatedIds(session)
    for rows in pages(session, _CHUNK):
        damaged = _look(session, rows, report, names)
        for _ in range(_ATTEMPTS):
            if not damaged:
                break
            # a record that was written or rewritten while we read its parts looks damaged: look again
            session.refresh()
            again = np.unique([item.row for item in damaged])
            damaged = _look(session, again, VerifyReport(), RepeatedIds(session))
        report.damaged += damaged
        if progress is not None:
            progress(len(rows), total)
    report.damaged += [Damage(row, id, "id given twice") for row, id in names.repeated()]
    return report


def _older(session: Session) -> list[str]:
    """Return a line for each kept index that does not belong to the newest state of the records."""
    kept = {}
    if isinstance(session.index, KeepsFiles) and (state := session.index.saved()) is not None:
        kept["cached index"] = state
    if not session.config.index_dim:
        kept |= {f"index of key version {version}": state for version, state in saved(session).items()}
    found = []
    for which, (generation, content, stamp) in kept.items():
        changes = session.records.changes(generation, content, stamp=stamp)
        if changes is None:
            continue
        writes = changes.generation - generation
        if generation < 0 or writes <= 0 or changes.content != content:
            age = "of another state of the records"
        else:
            age = f"{writes:,} {'write' if writes == 1 else 'writes'} older than the records"
        found.append(f"{which}: {age}; the next search brings it up to date")
    return found


@dataclass
class _Stored:
    """The parts of a record in the store."""

    partition: int
    token: bytes
    terms: set[tuple[str, Term]]
    vector: npt.NDArray[np.uint8] | None
    payload: bytes | None
    index_vector: npt.NDArray[np.float32] | None


def _look(session: Session, rows: Rows, report: VerifyReport, names: RepeatedIds) -> list[Damage]:
    """Count rows in the report, note their names, and return the damage found in them."""
    records = session.records
    known = records.audit(rows)
    vectors = _by_row(*records.vectors(rows))
    payloads = _by_row(*records.payloads(rows))
    index_vectors = _by_row(*records.index_vectors(rows)) if session.config.index_dim else {}
    stored = {
        row: _Stored(partition, token, terms, vectors.get(row), payloads.get(row), index_vectors.get(row))
        for row, partition, token, terms in known  # leaves out records that were deleted meanwhile
    }
    report.checked += len(stored)
    damaged, ids = offload(len(rows), _compare, session, stored, report)
    names.note(ids)
    return damaged


def _compare(session: Session, stored: dict[int, _Stored], report: VerifyReport) -> tuple[list[Damage], dict[int, Id]]:
    """Return the damage of records, and the ids of those whose payload is authentic, by row."""
    dead = session.keyring.dead
    damaged: list[Damage] = []
    ids: dict[int, Id] = {}
    for row, record in stored.items():
        if record.payload is None or record.vector is None:
            part = "payload" if record.payload is None else "vector"
            damaged.append(Damage(row, None, f"{part} missing"))
            continue
        version = int.from_bytes(record.payload[KEY_VERSION], "big")
        if version in dead:
            faults = _faults_of_dead(session, version, record, record.vector[None], record.payload)
            damaged += [Damage(row, None, part) for part in faults]
            report.unreadable += not faults
            continue
        try:
            id, metadata, _ = session.keyring.open_payloads([record.payload])[0]
        except AuthenticationError:
            damaged.append(Damage(row, None, "payload"))
            continue
        ids[row] = id
        codec = session.keyring.codec(version, session.config)
        damaged += [Damage(row, id, part) for part in _faults(session, codec, record, id, metadata)]
    return damaged, ids


def _faults_of_dead(
    session: Session, version: int, record: _Stored, envelope: npt.NDArray[np.uint8], payload: bytes
) -> list[str]:
    """Return the wrong parts of a record that claims a disabled or destroyed key version.

    Otherwise any record could be hidden by such a label. A disabled version still has its key, so both parts are
    authenticated. Of a destroyed version it is known that no record outlives a rewrite under a later one.
    """
    if version_of(record.partition) != version or version < session.config.rewritten_key:
        return ["key version"]
    if payload[:TOKEN] != record.token:
        return ["record token"]
    if not session.covers(envelope) or not of_one_write(envelope[:, :PREFIX], [payload[:PREFIX]]):
        return ["vector"]
    return [] if session.keyring.are_authentic(version, envelope, payload) else ["payload"]


def _faults(session: Session, codec: RecordCodec, record: _Stored, id: Id, metadata: dict[str, Any]) -> list[str]:
    """Return the parts of a record that do not belong to its payload, which was authenticated."""
    vector, faults = _open_vector(session, record), []
    if vector is None:
        faults.append("vector")
    token = np.frombuffer(record.token, np.uint8)[None]
    named = (record.payload or b"")[:TOKEN] == record.token and codec.are_named([id], token).all()
    if not named:
        faults.append("record token")
    if version_of(record.partition) != codec.key_version:
        faults.append("key version")
    elif named and record.partition != codec.partitions(token)[0]:
        faults.append("cell")
    if vector is not None and not _is_bound(session, codec, record, vector):
        faults.append("index vector")
    if {(name, term) for _, name, term in codec.terms([metadata])} != record.terms:
        faults.append("filter terms")
    return faults


def _open_vector(session: Session, record: _Stored) -> npt.NDArray[np.float32] | None:
    """Return the (1, dim) exact vector, or None if it does not open or belongs to another payload."""
    if record.vector is None or record.payload is None:
        return None
    envelope = record.vector[None]
    try:
        if not session.covers(envelope) or not of_one_write(envelope[:, :PREFIX], [record.payload[:PREFIX]]):
            return None
        return session.keyring.open_vectors(envelope)
    except (AuthenticationError, KeyUnavailableError):
        return None


def _is_bound(session: Session, codec: RecordCodec, record: _Stored, vector: npt.NDArray[np.float32]) -> bool:
    """Return True if the stored index vector is the one that the record was written with."""
    dim = session.config.index_dim
    found = np.empty(0, np.float32) if record.index_vector is None else record.index_vector
    if found.shape != (dim,) or record.vector is None:
        return False
    return bool(codec.are_bound(record.vector[None], vector, found[None])[0])


def _by_row(rows: Rows, parts: Any) -> dict[int, Any]:
    return dict(zip(np.asarray(rows).tolist(), parts, strict=True))
