"""What a change of scheme stores before its end: a plan, and pages of records that are encrypted under it already.

Both are sealed blobs beside the records, which nobody else reads:

    change.plan                      the settings to come
    change.<plan>.<after>.<last>     records of the rows above `after` and up to `last`, as `Records.replace` takes them

A row is never used again, and what it holds never changes. So a record of a page is right until its row is gone. Rows
only grow, so the names of the pages say which rows are done. A part opens only under its own name, in its own
collection and incarnation, and under the primary key version: after a rotation the plan is void.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data.arrays import Rows
from ..data.fields import Term
from ..engine.session import Session
from ..errors import AuthenticationError, ProfileError, StaleConfigError
from ..schemes.profile import Profile
from ..sealed_index import arrays
from ..sealing.config import CollectionConfig, check_max_norm
from ..sealing.keyring import CHANGE
from ..storage.protocol import EncryptedBatch

__all__ = [
    "PLAN",
    "Page",
    "Plan",
    "begin",
    "content",
    "drop",
    "listed",
    "opened",
    "outside",
    "planned",
    "standing",
    "tidy",
]

FORMAT = 1
PLAN = f"{CHANGE}.plan"
AHEAD = 1_024
"""Revisions that the settings may go through until the change ends. A few happen: a count of encryptions, a fit."""
_ROW = re.compile(r"[0-9]{1,18}", re.ASCII)
_STEP = 4_096
"""The plan is padded with blanks to a multiple of this."""


@dataclass(frozen=True)
class Plan:
    """Where a change leads to."""

    number: str
    """16 random hex digits, in the names of its pages."""
    settings: CollectionConfig
    """The settings to come, with their profile. Their revision lies ahead of all until then."""
    max_norm: float | None
    """That of the collection when the plan was made."""
    raw: bytes
    """The stored plan, for `Records.keep(expect=...)`."""

    def fits(self, session: Session, config: CollectionConfig) -> bool:
        """Say whether pages of this plan are still right under the settings of now.

        Another scheme does not matter: pages depend on where the change leads to, not on where it comes from.
        """
        settings = self.settings
        if settings.bounded and settings.max_norm is None and session.records.count():
            return False  # there were no records to take it from
        current = session.keyring.primary == settings.rewritten_key
        return current and config.revision < settings.revision and config.max_norm == self.max_norm

    def leads_to(self, spec: Any, max_norm: float | None) -> bool:
        """Say whether the plan is for this scheme and length, as `Collection.change` takes them. Raises InputError."""
        asked = check_max_norm(max_norm, self.settings.metric)
        return self.settings.has_scheme(spec) and asked in (None, self.settings.max_norm)

    def applied(self, config: CollectionConfig) -> CollectionConfig:
        """Return the settings to come, with what the collection has learned since the plan was made."""
        return replace(
            self.settings,
            encrypted=config.encrypted,
            model=config.model,
            needs=config.needs,
            extra=config.extra,
            sealed=config.sealed,
        )


@dataclass(frozen=True, order=True)
class Page:
    """A stored page: the rows above `after` and up to `last`, as far as they were there."""

    after: int
    last: int
    plan: str

    @property
    def name(self) -> str:
        """The name of its blob."""
        return f"{CHANGE}.{self.plan}.{self.after}.{self.last}"


# the plan


def begin(session: Session, before: CollectionConfig, fresh: CollectionConfig) -> Plan:
    """Store a plan for settings to come, in place of any other plan and its pages.

    Raises StaleConfigError: another process stored one at the same moment.
    """
    records, keyring = session.records, session.keyring
    revision, number = before.revision + AHEAD, os.urandom(8).hex()
    settings = replace(fresh, revision=revision, rewritten=revision, rewritten_key=keyring.primary)
    document = {
        "format": FORMAT,
        "plan": number,
        "max_norm": before.max_norm,
        "settings": json.loads(settings.to_json()),
    }
    content = json.dumps(document, sort_keys=True).encode()
    content = content.ljust(-(-len(content) // _STEP) * _STEP)
    parts = {"plan": content, "profile": b"" if settings.profile is None else settings.profile.to_bytes()}
    blob = keyring.seal_change(PLAN, _packed({name: np.frombuffer(part, np.uint8) for name, part in parts.items()}))
    old = records.blob(PLAN)
    if not records.keep([(PLAN, 0, blob)], drop=list(records.blobs(f"{CHANGE}.")), expect={PLAN: old}):
        raise StaleConfigError(
            "another process has begun a change of scheme meanwhile: call this again to go on with it"
        )
    return Plan(number, settings, before.max_norm, blob.content)


def planned(session: Session) -> Plan | None:
    """Return the stored plan; None if there is none, or if it is of no use: altered, or of an older key version."""
    raw = session.records.blob(PLAN)
    if raw is None:
        return None
    try:
        parts = arrays.read(session.keyring.open_change(PLAN, raw))
        document = json.loads(parts["plan"].tobytes())
        if document["format"] != FORMAT:
            return None
        settings = CollectionConfig.from_json(json.dumps(document["settings"]).encode(), session.config.incarnation)
        if settings.scheme.profile is not None:
            settings = replace(settings, profile=Profile.from_bytes(parts["profile"].tobytes()))
    except (AuthenticationError, ProfileError, ValueError, KeyError):
        return None
    return Plan(document["plan"], settings, document["max_norm"], raw)


def drop(session: Session) -> None:
    """Delete the plan and all pages, if there are any."""
    if names := list(session.records.blobs(f"{CHANGE}.")):
        session.records.keep(drop=names)


def tidy(session: Session) -> None:
    """Delete a plan and pages of an older key version, which are of no use, but can be opened."""
    plan = planned(session)
    if plan is None or not plan.fits(session, session.config):
        drop(session)


def standing(session: Session, config: CollectionConfig) -> dict[str, Any] | None:
    """Describe a change that is not finished: where it leads `to`, how many of the `records` are `done`, and a `note`.

    None if there is none. `to` is None if it has to begin again. The note says it in words, and what to call.
    """
    names = session.records.blobs(f"{CHANGE}.")
    if PLAN not in names:
        return None
    plan, rows = planned(session), session.records.rows()
    if plan is None or not plan.fits(session, config):
        why = "a change of scheme is not finished, and keys or settings were changed since, or its plan is damaged"
        how = f"{_calls(session, 'SCHEME')} begins it again, {_calls(session, config.scheme.name)} gives it up"
        return {"to": None, "done": 0, "records": len(rows), "note": f"{why}: {how}"}
    to, done = plan.settings.scheme.name, len(rows) - len(outside(rows, listed(names, plan)))
    why = f"a change to {to} is not finished, {done:,} of {len(rows):,} records are encrypted for it"
    how = f"unless another process is at it, {_calls(session, to)} goes on with it"
    return {"to": to, "done": done, "records": len(rows), "note": f"{why}: {how}"}


def _calls(session: Session, scheme: str) -> str:
    """Say how to change to a scheme, in Python and on the command line."""
    tenant, name = session.records.spec.place
    owner = f" --tenant {shlex.quote(tenant)}" if tenant else ""
    return f'change(scheme="{scheme}") or `encvec scheme {shlex.quote(name)} {scheme}{owner}`'


# pages


def listed(names: Iterable[str], plan: Plan) -> list[Page]:
    """Return the pages of a plan, ascending, of all these names of blobs."""
    found = []
    for name in names:
        match name.split("."):
            case [_, plan.number, after, last] if _ROW.fullmatch(after) and _ROW.fullmatch(last):
                found.append(Page(int(after), int(last), plan.number))
    return sorted(found)


def outside(rows: Rows, pages: Iterable[Page]) -> Rows:
    """Return those of (n,) ascending rows that no page covers."""
    inside = np.zeros(len(rows), np.bool_)
    for page in pages:
        first, end = np.searchsorted(rows, [page.after, page.last], "right")
        inside[first:end] = True
    return rows[~inside]


def content(batch: EncryptedBatch) -> bytes:
    """Return the content of a page, to be sealed. Its size depends on counts, sizes of payloads, and filter terms."""
    terms = [
        (at, name, kind, [value.hex()] if isinstance(value, bytes) else value)
        for at, name, (kind, value) in batch.terms
    ]
    return _packed(
        {
            "rows": np.asarray(batch.rows, np.int64),
            "partitions": batch.partitions,
            "tokens": batch.tokens,
            "index_vectors": batch.index_vectors,
            "vectors": batch.vectors,
            "sizes": np.fromiter(map(len, batch.payloads), np.int64, len(batch.payloads)),
            "payloads": np.frombuffer(b"".join(batch.payloads), np.uint8),
            "terms": np.frombuffer(json.dumps(terms).encode(), np.uint8),
        }
    )


def opened(session: Session, page: Page) -> EncryptedBatch | None:
    """Return the records of a page; None if it is gone, was altered or swapped, or is in another format."""
    raw = session.records.blob(page.name)
    try:
        parts = {} if raw is None else arrays.read(session.keyring.open_change(page.name, raw))
        ends = np.cumsum(parts["sizes"]).tolist()
        payloads = parts["payloads"].tobytes()
        return EncryptedBatch(
            rows=parts["rows"],
            partitions=parts["partitions"],
            tokens=parts["tokens"],
            index_vectors=parts["index_vectors"],
            vectors=parts["vectors"],
            payloads=[payloads[start:end] for start, end in zip([0, *ends], ends, strict=False)],
            terms=[
                (at, name, Term(kind, bytes.fromhex(*value) if isinstance(value, list) else value))
                for at, name, kind, value in json.loads(parts["terms"].tobytes())
            ],
        )
    except (AuthenticationError, ValueError, KeyError):
        return None


def _packed(parts: dict[str, arrays.Array]) -> bytes:
    return b"".join(piece.data for piece in arrays.pieces(parts))
