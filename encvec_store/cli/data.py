"""`encvec search`, `get`, `delete`, `count`: records of one collection."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy.typing as npt

from ..collection import Collection
from ..data.ids import Id
from ..data.records import Hit, Record
from ..errors import InputError, ShapeError
from ..transfer.typed import record_to_json
from .common import Place, confirmed, open_collection, open_store, place_options, tenant_option
from .output import emit, facts, note, printable, snippet, table
from .values import parse_where, queries_from, read_queries

__all__ = ["count", "delete", "get", "named", "search", "tell", "where_option"]

where_option = click.option("--where", metavar="JSON", help="""Filter: '{"lang": "de", "year": {"gte": 2020}}'.""")
vectors_option = click.option("--vectors", is_flag=True, help="Show the vectors too.")


@click.command()
@click.argument("collection")
@click.option("--vector", metavar="JSON", help="The query, '[0.1, ...]'. Other users see command lines.")
@click.option("--vector-file", metavar="FILE", help="Query or queries: .npy, or JSON; `-` is JSON on stdin.")
@click.option("--id", "id", metavar="ID", help="Search by the vector of this record (which then comes first).")
@click.option("--like", multiple=True, metavar="ID", help="Search by examples: near these records. Repeat for more.")
@click.option("--unlike", multiple=True, metavar="ID", help="With --like: away from these records.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits per query.")
@click.option(
    "--oversample",
    type=click.IntRange(1, 10_000),
    help="Sketch or sap: candidates re-ranked per hit, this time.",
)
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Skip N hits.")
@click.option("--threshold", type=float, metavar="SCORE", help="No hit that is farther than this score.")
@click.option("--group-by", metavar="FIELD", help="At most --group-size hits with the same value.")
@click.option("--group-size", type=click.IntRange(1), default=1, metavar="N", help="Hits of a group; by default 1.")
@click.option("--diversity", type=click.FloatRange(0, 1), help="0 to 1: hits that differ from each other.")
@click.option("--explain", is_flag=True, help="Show how the search would run, instead of running it.")
@where_option
@vectors_option
@tenant_option
@place_options
def search(
    collection: str,
    vector: str | None,
    vector_file: str | None,
    id: str | None,
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    k: int,
    oversample: int | None,
    offset: int,
    threshold: float | None,
    group_by: str | None,
    group_size: int,
    diversity: float | None,
    explain: bool,
    where: str | None,
    vectors: bool,
    tenant: str,
    place: Place,
    as_json: bool,
) -> None:
    """Find the K nearest records, with exact scores.

    Nearest first. Scores are those of the collection's metric: for cosine and ip larger is nearer, for l2 smaller.
    Operators of --where: eq, ne, in, nin, lt, lte, gt, gte, between, contains, prefix, like, ilike, any, all, exists.
    and, or, not combine filters. Searches by examples leave the examples out.

    --json prints {"query": 0, "hits": [{"id", "score", "metadata", "document"}]}, a line for each query.

    \b
    Examples:
      encvec search docs --vector-file query.npy
      encvec search docs --id docs:17 -k 5 --where '{"lang": {"in": ["de", "fr"]}}'
      encvec search docs --like docs:17 --like docs:20 --unlike docs:3
      my-encoder "a question" | encvec search docs --vector-file - --json
    """
    if sum(given is not None for given in (vector, vector_file, id, like or None)) != 1:
        raise click.UsageError("a search takes one of --vector, --vector-file, --id and --like")
    if unlike and not like:
        raise click.UsageError("--unlike goes with --like, which names at least one record to search near")
    if like and explain:
        raise click.UsageError("--explain goes with --vector, --vector-file or --id")
    queries: npt.NDArray[Any] | None = None
    if vector is not None:
        queries = queries_from(vector, "--vector")
    elif vector_file is not None:
        text = sys.stdin.read() if vector_file == "-" else None
        queries = queries_from(text, "standard input") if text is not None else read_queries(Path(vector_file))
    condition = parse_where(where)
    with open_store(place) as store:
        target = open_collection(store, collection, tenant, oversample=oversample)
        how: dict[str, Any] = {"offset": offset, "threshold": threshold, "diversity": diversity}
        how |= {"group_by": group_by, "group_size": group_size, "include_vectors": vectors}
        answers: list[list[Hit]]
        if queries is None and not like:
            queries = _stored(target, str(id))
        elif queries is not None and queries.shape[1] != target.dim:
            raise ShapeError(f"a query of {queries.shape[1]} numbers, where {collection!r} has vectors of {target.dim}")
        if queries is None:
            names = named(target, [*like, *unlike])
            answers = [target.recommend(names[: len(like)], names[len(like) :], k, condition, **how)]
        elif explain:
            told = target.explain(queries[0], k, condition) if len(queries) else ""
            if as_json:
                emit({"explain": told})
            else:
                click.echo("\n".join(map(printable, told.splitlines())))
            return
        else:
            answers = target.search(queries, k, condition, **how)
    for number, hits in enumerate(answers):
        if as_json:
            emit({"query": number, "hits": [record_to_json(hit, vectors=vectors) for hit in hits]})
            continue
        if len(answers) > 1:
            click.echo(f"query {number}")
        _show(hits, vectors, scored=True)


def _stored(target: Collection, id: str) -> npt.NDArray[Any]:
    found = target.get(named(target, [id]))
    if not found or found[0].vector is None:
        raise InputError(f"no record {id!r} in collection {target.name!r}")
    return found[0].vector[None]


def named(target: Collection, texts: Sequence[str]) -> list[Id]:
    """Return the ids that texts name: the string itself, or the integer or UUID of this text if only that exists."""
    known = {record.id for record in target.get(texts, include_vectors=False)}
    others = {text: other for text in texts if text not in known and (other := _other(text)) is not None}
    known = {record.id for record in target.get(list(others.values()), include_vectors=False)} if others else known
    return [other if (other := others.get(text)) in known else text for text in texts]


def _other(text: str) -> Id | None:
    """Return the integer or the UUID that a text is the usual form of."""
    for kind in (int, uuid.UUID):
        try:
            value: Id = kind(text)
        except ValueError:
            continue
        if str(value) == text:
            return value
    return None


def _show(records: list[Record] | list[Hit], vectors: bool, *, scored: bool) -> None:
    columns = ["id", *(["score"] if scored else []), "document", "metadata", *(["vector"] if vectors else [])]
    rows = []
    for record in records:
        form = record_to_json(record, vectors=vectors)
        row = [snippet(str(record.id), 80), *([form["score"]] if scored else []), snippet(record.document or "")]
        row.append(snippet(form["metadata"]) if form["metadata"] else "")
        rows.append(row + ([snippet(form.get("vector"), 40)] if vectors else []))
    if rows:
        table(columns, rows)
    else:
        note("no hits")


@click.command()
@click.argument("collection")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every record.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N records.")
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Skip N records.")
@click.option("--order-by", multiple=True, metavar="FIELD", help="Sort by a field; `-FIELD` descends. Repeat for more.")
@where_option
@vectors_option
@tenant_option
@place_options
def get(
    collection: str,
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    offset: int,
    order_by: tuple[str, ...],
    where: str | None,
    vectors: bool,
    tenant: str,
    place: Place,
    as_json: bool,
) -> int:
    """Print records in clear, by id or by filter.

    With --json, prints one record a line, as `encvec ingest` reads them; add --vectors for a full export. Missing ids
    are named on stderr, and the exit code is 1.

    \b
    Examples:
      encvec get docs docs:17 docs:18
      encvec get docs --where '{"lang": "de"}' --order-by -year --limit 10
      encvec get docs --all --vectors --json > docs.jsonl
    """
    if (bool(ids) + everything + (where is not None)) != 1:
        raise click.UsageError("get takes ids, or --where, or --all")
    condition = parse_where(where)
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        if ids:
            names = named(target, ids)
            found = target.get(names, include_vectors=False)
            missing = sorted(map(str, set(names) - {record.id for record in found}))
            part = target.get(names, order_by=order_by or None, offset=offset, limit=limit, include_vectors=vectors)
            _print(iter(part), vectors, as_json)
        elif offset or order_by:
            missing = []
            how: dict[str, Any] = {"offset": offset, "limit": limit, "include_vectors": vectors}
            _print(iter(target.get(where=condition, order_by=order_by or None, **how)), vectors, as_json)
        else:
            missing = []
            _print(islice(target.scroll(condition, include_vectors=vectors), limit), vectors, as_json)
    if missing and as_json:
        click.echo(_missing_json(missing), err=True)
    elif missing:
        note(f"not found: {', '.join(map(repr, missing))}")
    return 1 if missing else 0


def _missing_json(ids: list[str]) -> str:
    import json

    return json.dumps({"missing": ids})


def _print(records: Iterator[Record], vectors: bool, as_json: bool) -> None:
    if as_json:
        for record in records:
            emit(record_to_json(record, vectors=vectors))
        return
    while chunk := list(islice(records, 1000)):
        _show(chunk, vectors, scored=False)


@click.command()
@click.argument("collection")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--yes", is_flag=True, help="Do not ask before deleting by filter.")
@where_option
@tenant_option
@place_options
def delete(
    collection: str,
    ids: tuple[str, ...],
    yes: bool,
    where: str | None,
    tenant: str,
    place: Place,
    as_json: bool,
) -> int:
    """Delete records by id or by filter.

    All or nothing. Missing ids are no error.

    \b
    Examples:
      encvec delete docs docs:17
      encvec delete docs --where '{"source": "old.pdf"}' --yes
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("delete takes either ids or --where; `encvec drop` deletes a whole collection")
    condition = parse_where(where)
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        if condition is not None and not yes:
            n = target.count(condition) if condition else target.count()
            if not confirmed(f"Delete {n:,} of the {target.count():,} records of {collection!r}?", yes):
                return 1
        deleted = target.delete(ids=named(target, ids)) if ids else target.delete(where=condition)
        answer = {"collection": collection, "tenant": tenant, "deleted": deleted, "count": target.count()}
    tell(answer, as_json)
    return 0


@click.command()
@click.argument("collection")
@where_option
@tenant_option
@place_options
def count(collection: str, where: str | None, tenant: str, place: Place, as_json: bool) -> None:
    """Count the records of COLLECTION, or of a filter.

    \b
    Example:
      encvec count docs --where '{"lang": "de"}'
    """
    condition = parse_where(where)
    with open_store(place) as store:
        n = open_collection(store, collection, tenant).count(condition)
    if as_json:
        emit({"collection": collection, "tenant": tenant, "count": n})
    else:
        click.echo(n)


def tell(answer: dict[str, Any], as_json: bool) -> None:
    """Print what a command did."""
    if as_json:
        emit(answer)
    else:
        facts((name, value) for name, value in answer.items() if name != "tenant" or value)
