"""What a thief has of one collection, as arrays: what the attacks begin with.

    haul = hauls(stolen("faiss:store"))["docs"]
    for line in beginnings(stolen("faiss:store")): ...
    rows = attack_hauls([haul], known, truth, noise=1.25)

Under `sealed` there are no index vectors, so no attack on vectors can begin. What is left is the order of writes and
the sizes of payloads: `guessed` names records by these, for somebody who has the very same texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data import Matrix
from ...errors import InputError
from ...storage import unpacked
from .algebra import Indices, float32, unit
from .attacks import ATTACKS
from .attacks.expectation import Labels
from .cells import parts
from .experiment import Row, attacked
from .theft import Columns, StoreCopy, Telling
from .views import Case, Groups

__all__ = ["Haul", "Holdings", "attack_hauls", "beginnings", "guessed", "hauls"]

_WRITE = 100
"""Records that are taken for one write where the store does not remember the writes."""
_ADDED = 1
_TOKEN = "token"  # noqa: S105 - the kind of a blind term
_NEEDS = {
    "corpus": "embeddings of the kind",
    "pairs": "known pairs",
    "classes": "labels of a plain field",
    "tokens": "labels of a blind field",
    "sizes": "texts and their sizes",
    "order": "texts in their order",
    "dumps": "another dump, encrypted anew in between",
}


@dataclass(frozen=True)
class Haul:
    """One collection in a copy of a store. Records are in the order in which they were written."""

    name: str
    rows: npt.NDArray[np.int64] = field(repr=False)
    """(n,) the store's numbers, ascending."""
    tokens: Sequence[bytes] = field(repr=False)
    """(n,) in place of the ids."""
    sizes: npt.NDArray[np.int64] = field(repr=False)
    """(n,) bytes of each sealed payload."""
    writes: npt.NDArray[np.int64] = field(repr=False)
    """(n,) the write in which each record came, ascending; those the store forgot are cut into runs of 100."""
    vectors: Matrix | None = field(repr=False)
    """(n, k) index vectors; None where there are none."""
    partitions: npt.NDArray[np.int64] = field(repr=False)
    """(n,) a cell under a key version."""
    plain: Mapping[str, Sequence[Any]] = field(repr=False)
    """Plain fields: the values of each record (n,), each a tuple."""
    blind: Sequence[tuple[bytes, ...]] | None = field(repr=False)
    """(n,) the tokens of each record in all blind fields together; None if there are none."""


@dataclass(frozen=True)
class Holdings:
    """What an adversary has beside the copies.

    Args:
        corpus: (m, d) embeddings.
        labels: of his own texts (m,), by field, as the store would have them.
        sizes: (m,) that their sealed payloads would have.
        ordered: they are the very texts that are stored, in the order in which they were written.
        pairs: (p,) places of records whose vectors he knows.
        pair_vectors: (p, d) these vectors.
    """

    corpus: Matrix = field(repr=False)
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    sizes: Labels | None = field(default=None, repr=False)
    ordered: bool = False
    pairs: Indices = field(default_factory=lambda: np.zeros(0, np.intp), repr=False)
    pair_vectors: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)


def hauls(copy: StoreCopy) -> dict[str, Haul]:
    """Return what a copy holds of each collection, by the name that stands there."""
    return {name: _haul(copy, number, name) for number, name in copy.collections.items()}


def beginnings(copy: StoreCopy) -> list[Telling]:
    """Say of every attack of the lab whether it has anything to begin with, for each collection."""
    lines = []
    for name, haul in hauls(copy).items():
        for needs, words in _NEEDS.items():
            names = ", ".join(attack.name for attack in ATTACKS.values() if attack.holds == needs)
            can = "can begin" if _has(haul, needs) else "nothing to begin with"
            why = "there are no index vectors" if haul.vectors is None else "this is not stored"
            tells = f"for a thief who has {words}" if can == "can begin" else why
            lines.append(Telling(name, f"attacks: {names}", can, tells))
    return lines


def attack_hauls(
    found: Sequence[Haul], known: Holdings, truth: Matrix, *, noise: float, attacks: Sequence[str] | None = None
) -> list[Row]:
    """Run the attacks that what was stolen allows, each by itself.

    Args:
        found: one collection in one copy or more, the newest first. Records that are in all of them are attacked.
        known: what the adversary has.
        truth: (n, d) vectors of the first haul's records in its order, to score by.
        noise: the scheme's beta / 4, which is no secret.
        attacks: names; None is all.

    Returns:
        Rows as those of `attack_arrays`, with `beside`. Empty where there are no index vectors.

    Raises:
        InputError: not one vector of truth for each record.
    """
    first = found[0]
    if len(truth) != len(first.rows):
        raise InputError(f"truth must have one vector for each of {len(first.rows)} records, got {len(truth)}")
    if first.vectors is None:
        return []
    rows: list[Row] = []
    for name in attacks or ATTACKS:
        attack = ATTACKS[name]
        case, kept = _case(found, known, noise, attack.holds)
        if case is None:
            continue
        whole = parts("", case, np.zeros(len(case.ciphertexts), np.int64), None)
        for look in attack.views:
            beside = {} if attack.holds in ("corpus", "pairs") else {"beside": attack.holds}
            row = attacked(name, whole, unit(float32(truth[kept])), look)
            rows += [] if row is None else [{**row, **beside}]
    return rows


def guessed(
    haul: Haul, sizes: npt.NDArray[np.integer], rng: np.random.Generator, *, ordered: bool, sized: bool
) -> Indices:
    """Name records by where and how large they are: all that `sealed` leaves to who has the very same texts.

    Args:
        haul: n records.
        sizes: (n,) that the sealed payloads of his texts would have, texts in the order in which they were written.
        rng: draws among those that he cannot tell apart.
        ordered: whether he knows that order.
        sized: whether he looks at sizes.

    Returns:
        (n,), for each record the place of a text. Each text is named once.
    """
    keys = np.zeros((2, 2, len(haul.rows)), np.int64)
    if ordered:
        keys[:, 0] = haul.writes  # his texts are written in these runs too
    if sized:
        keys[0, 1], keys[1, 1] = haul.sizes, sizes
    mixed = rng.permutation(len(haul.rows)), rng.permutation(len(haul.rows))
    mine, theirs = (order[np.lexsort(side[::-1][:, order])] for side, order in zip(keys, mixed, strict=True))
    named = np.empty(len(haul.rows), np.intp)
    named[mine] = theirs
    return named


# --------------------------------------------------------------------------------------------- inside


def _haul(copy: StoreCopy, number: int, name: str) -> Haul:
    records = copy.rows_of("records", number)
    numbers = np.array(records.get("row", []), np.int64)
    order = np.argsort(numbers)
    rows = numbers[order]

    def cells(column: str) -> list[Any]:
        held = records.get(column, [None] * len(order))
        return [held[i] for i in order]

    plain, blind = _fields(copy.rows_of("terms", number), rows)
    return Haul(
        name,
        rows,
        [bytes(cell) for cell in cells("token")],
        np.array([0 if cell is None else len(cell) for cell in cells("payload")], np.int64),
        _writes(copy.rows_of("changes", number), rows),
        _vectors(cells("vector"), copy.tables["collections"], number),
        np.array(cells("partition"), np.int64),
        plain,
        blind,
    )


def _vectors(cells: Sequence[Any], collections: Columns, number: int) -> Matrix | None:
    """Read index vectors as either store keeps them: bytes of float32 or float16, or pgvector's text."""
    if not cells or any(cell is None for cell in cells):
        return None
    if isinstance(cells[0], str):
        return float32([json.loads(cell) for cell in cells])
    if not isinstance(cells[0], bytes | memoryview):
        return float32([np.asarray(cell) for cell in cells])
    dim = collections["index_dim"][collections["id"].index(number)]
    kind = "<f2" if len(cells[0]) == 2 * dim else "<f4"
    return float32(np.frombuffer(b"".join(map(bytes, cells)), kind).reshape(len(cells), dim))


def _writes(changes: Columns, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    noted = zip(changes.get("kind", []), changes.get("rows", []), strict=True)
    starts = [unpacked(bytes(cell))[0] for kind, cell in noted if kind == _ADDED and cell]
    # a row that no remembered write begins before was written earlier than all of them
    found = np.searchsorted(np.unique(starts), rows, side="right").astype(np.int64)
    older = np.flatnonzero(found == 0)
    found[found > 0] += len(older) // _WRITE + 1
    found[older] = np.arange(len(older)) // _WRITE
    return found


def _fields(
    terms: Columns, rows: npt.NDArray[np.int64]
) -> tuple[dict[str, list[tuple[Any, ...]]], list[tuple[bytes, ...]] | None]:
    """Return plain values by field, and the tokens of all blind fields, each a tuple for each row."""
    places = {row: place for place, row in enumerate(rows.tolist())}
    fields: dict[str, list[list[Any]]] = {}
    for row, name, kind, value in zip(
        *(terms.get(column, []) for column in ("row", "field")), *_values(terms), strict=True
    ):
        if row in places:
            named = bytes(name).decode(errors="replace") if isinstance(name, bytes | memoryview) else str(name)
            shown = "" if kind == _TOKEN else named
            if shown not in fields:
                fields[shown] = [[] for _ in rows]
            fields[shown][places[row]].append(value)
    whole = {name: [tuple(sorted(cell, key=repr)) for cell in held] for name, held in fields.items()}
    blind = whole.pop("", None)
    return whole, blind


def _values(terms: Columns) -> tuple[list[str], list[Any]]:
    """Return kinds and values of terms: as SQLite has them, or from the bytes that PostgreSQL sorts by."""
    if "key" not in terms:
        return terms.get("kind", []), terms.get("value", [])
    from ...storage.postgres import term_from

    found = [
        term_from(kind, bytes(key), None if rest is None else bytes(rest))
        for kind, key, rest in zip(terms["kind"], terms["key"], terms["rest"], strict=True)
    ]
    return [term.kind for term in found], [term.value for term in found]


def _has(haul: Haul, needs: str) -> bool:
    if haul.vectors is None:
        return False
    return bool(haul.plain) if needs == "classes" else haul.blind is not None if needs == "tokens" else True


def _case(found: Sequence[Haul], known: Holdings, noise: float, needs: str) -> tuple[Case | None, Indices]:
    """Return what an attack begins with, and the places of the records; no case if something lacks."""
    first = found[0]
    kept = np.arange(len(first.rows))
    assert first.vectors is not None  # noqa: S101 - the caller looked
    groups: dict[str, Groups] = {}
    dumps: tuple[Matrix, ...] = ()
    match needs:
        case "pairs" if not len(known.pairs):
            return None, kept
        case "classes" | "tokens":
            pair = _labelled(first, known, needs)
            if pair is None:
                return None, kept
            groups[needs] = pair
        case "sizes":
            if known.sizes is None:
                return None, kept
            groups[needs] = first.sizes, np.asarray(known.sizes)
        case "order":
            if not known.ordered or len(known.corpus) != len(kept):
                return None, kept
            groups[needs] = first.writes, first.writes
        case "dumps":
            kept, dumps = _shared(found)
            if not dumps:
                return None, kept
    rng = np.random.default_rng(0)
    corpus = unit(float32(known.corpus))
    pairs = (known.pairs, known.pair_vectors) if needs == "pairs" else (kept[:0], corpus[:0])
    case_ = Case(first.vectors[kept], corpus, rng, noise, None, None, *pairs, groups, dumps)
    return case_, kept


def _labelled(haul: Haul, known: Holdings, needs: str) -> Groups | None:
    """Return numbers of classes on both sides, of the field with most classes of those that both know."""
    if needs == "tokens":
        hidden = [name for name in known.labels if name not in haul.plain]
        if haul.blind is None or not hidden:
            return None
        return _numbers(haul.blind), _numbers([(value,) for value in known.labels[hidden[0]]])
    both = [name for name in known.labels if name in haul.plain]
    if not both:
        return None
    name = max(both, key=lambda each: len(set(known.labels[each])))
    together = _numbers([*haul.plain[name], *((value,) for value in known.labels[name])])
    return together[: len(haul.rows)], together[len(haul.rows) :]


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    at: dict[Any, int] = {}
    return np.array([at.setdefault(value, len(at)) for value in values], np.int64)


def _shared(found: Sequence[Haul]) -> tuple[Indices, tuple[Matrix, ...]]:
    """Return which records are in all copies, and the other copies' index vectors of these, if they are new.

    Tokens tell; after a change of keys these are new too, and if no record came or went the order tells.
    """
    first, kept, dumps = found[0], np.arange(len(found[0].rows)), []
    places: list[Mapping[int, int]] = []
    for other in found[1:]:
        found_at = {token: place for place, token in enumerate(other.tokens)}
        same = {here: found_at[token] for here, token in enumerate(first.tokens) if token in found_at}
        if not same and len(other.rows) == len(first.rows):
            same = {here: here for here in range(len(first.rows))}
        places.append(same)
        kept = kept[np.isin(kept, list(same))]
    for other, at in zip(found[1:], places, strict=True):
        if other.vectors is not None and len(kept):
            dump = other.vectors[[at[here] for here in kept.tolist()]]
            if first.vectors is None or dump.shape != first.vectors[kept].shape or (dump != first.vectors[kept]).any():
                dumps.append(dump)
    return kept, tuple(dumps)
