"""`encvec leakage`: what ciphertexts give away, by attack."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import importlib.util
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..collection import Collection
from ..sealing import DEFAULT_SCHEME
from .common import LIMIT, Failure, Place, open_collection, open_store, place_options, tenant_option
from .leakage_data import of_collection, of_vectors, probe_trials, sealed_beside, sealed_copy
from .output import emit, note, progress, table

__all__ = ["leakage"]


@click.command()
@click.option("--collection", metavar="NAME", help="Attack what the store holds of a collection of your own.")
@click.option("--data", metavar="FILE", help="Vectors to protect: npy, parquet, jsonl, hdf5 [default: built-in ones].")
@click.option("--corpus", metavar="FILE", help="The adversary's vectors, none of the first [default: half of those].")
@click.option(
    "--subject", "names", multiple=True, metavar="NAME",
    help="What to attack; again for more [default: sketch and sap].",
)  # fmt: skip
@click.option(
    "--attack", "attacks", multiple=True, metavar="NAME", help="Attacks to run; again for more [default: all]."
)
@click.option("--adversary", "adversaries", multiple=True, type=click.Choice(["disjoint", "same", "superset"]),
              default=("disjoint", "same"), show_default=True, help="What the adversary's corpus is.")  # fmt: skip
@click.option(
    "-n", "--records", "sizes", type=click.IntRange(10), multiple=True, help="Records under one key; again for more."
)
@click.option(
    "--pairs",
    type=click.IntRange(1),
    multiple=True,
    help="Known pairs, for attacks that need them; again for more [default: 50].",
)
@click.option("--probes", is_flag=True, help="Also ask what leaks beside names: linkage of two keys, membership, ...")
@click.option(
    "--labels", metavar="FILE", help="npy: a class of each vector of --data, then of --corpus, as a field shows it."
)
@click.option("--people", is_flag=True, help="The labels tell who is shown, not what a text is about.")
@click.option("-k", "--dims", type=click.IntRange(2), help="Dimensions of a sketch [default: a collection's].")
@click.option("--cells", type=click.IntRange(1), help="Parts of a collection, each under a rotation of its own.")
@click.option("--beta", type=click.FloatRange(0), help="Noise [default: the scheme's in a collection].")
@click.option("--trials", type=click.IntRange(1), default=3, show_default=True,
              help="Trials, each with another key and other records; the worst counts.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1), help="Processes that share the attacks [default: one for each core].")
@click.option(
    "--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keep rows here, and go on."
)
@click.option(
    "--html", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the report page here."
)
@click.option("--rows", "kept", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Attack nothing: report on rows that --out kept.")  # fmt: skip
@click.option("--quick", is_flag=True, help="One trial, 1,500 records, the strongest attacks: about a minute.")
@click.option("--view", is_flag=True, help="Attack nothing: say what a copy of the store tells without a key.")
@click.option("--before", metavar="URL", help="An earlier copy of the store: say what both tell, for --view.")
@click.option("--list", "show", is_flag=True, help="List subjects and attacks.")
@tenant_option
@place_options
def leakage(
    collection: str | None,
    data: str | None,
    corpus: str | None,
    labels: str | None,
    people: bool,
    probes: bool,
    out: Path | None,
    html: Path | None,
    kept: Path | None,
    show: bool,
    view: bool,
    before: str | None,
    tenant: str,
    place: Place,
    as_json: bool,
    **choices: Any,
) -> int:
    """Attack index vectors without the key.

    Counts how many records are identified.

    The default scheme, sealed, leaves no index vectors to attack. So by default this attacks sketch and sap, with the
    dimensions, noise and candidates that a collection of as many records chooses. With --collection it attacks what
    your store holds: it opens the records with your keys, only to count which of them the attacks find.

    Every attack that applies is tried, by an adversary who holds other vectors of the kind (disjoint), the very same
    ones unordered (same), or these among others (superset). Once an attack names half, no other is tried in its place.
    The worst row of each subject is printed, with chance and with the recall@10 that the owner gets from the same
    ciphertexts. A run with --out that was stopped goes on when it is started again. Controls (plain, public-constant,
    shuffle, haar, and sketches with one step wrong) must break: a test that they pass is no test.

    Some attacks use what stands beside index vectors in a store: the classes that a plain or blind field shows (with
    --labels), the order of writes, several snapshots. Sizes of payloads are tried in Python (Experiment.sizes_shown).

    With --view, or --store and nothing to attack, it reads the store as a thief does, without a key, and says what
    that tells: counts, sizes, order, tokens, index vectors, what deleted records left behind.

    With --cells all are attacked together and each by itself; known pairs all lie in one cell, and its records are told
    from those of the others.

    With --probes also: whether two dumps under two keys can be linked (ISO/IEC 24745 unlinkability and renewability,
    D_sys), whether a text is stored, what averaging, own records and lengths give away; with --labels what a record
    is about, with --people who is found by other pictures, and the owner's error rates.

    \b
    Examples:
      encvec leakage --quick
      encvec leakage --data docs.npy --quick --html report.html
      encvec leakage --store faiss:stolen --before faiss:stolen-last-week
      encvec leakage --collection docs --html report.html
      encvec leakage --data docs.npy --subject sap --subject sketch -n 1000 -n 8000
      encvec leakage --data docs.npy --corpus public.npy --subject sketch -k 192 --beta 2.5 --json
      encvec leakage --data faces.npy --labels persons.npy --people --probes --html report.html
      encvec leakage --rows rows.jsonl --html report.html

    Exit code 1 where more than 1% of the records of a subject that is no control are identified without pairs.
    """
    if html is not None and not html.parent.is_dir():
        raise click.UsageError(f"--html: there is no folder {html.parent}")  # said now, not after hours of attacks
    if view or before is not None or _only_a_store(collection, data, kept, show):
        return _view(place, before, html, as_json)
    if importlib.util.find_spec("scipy") is None:
        raise Failure("ImportError", "scipy is not installed: pip install 'encvec-store[leakage]'")
    from ..lab.leakage import probe, run, worst, worst_probes
    from ..lab.leakage.corpus import LEAST, properties
    from ..lab.leakage.report import write
    from ..lab.leakage.running import cores

    _check(collection, data, labels, people, probes, choices)
    if kept is not None and html is None:
        raise click.UsageError("--rows goes with --html")
    if kept is not None and html is not None:
        write(html, kept.read_text(encoding="utf-8", errors="replace").split("\n"), _command())
        return 0
    if show:
        _list(as_json)
        return 0
    known: Any = None
    jobs = choices["jobs"] or cores()
    with ExitStack() as stack:
        if collection is None:
            experiment, known = of_vectors(data, corpus, labels, people, choices)
        else:
            store = stack.enter_context(open_store(place))
            target = open_collection(store, collection, tenant)
            stored = of_collection(target, corpus, choices)
            if stored is None:
                return _nothing(target, html, as_json)
            experiment, jobs = stored, 1  # the store is open in this process
        with progress("attacking", experiment.trials()) as advance:
            rows = run(experiment, out, lambda done: advance(done, None), jobs)
        leaks: list[dict[str, Any]] = []
        if probes:
            with progress("probing", probe_trials(experiment)) as advance:
                leaks = probe(experiment, known, out, lambda done: advance(done, None))
    if html is not None:
        beside = sealed_beside(experiment, out) if collection is None and not choices["names"] else []
        write(html, [*rows, *leaks, *beside], _command())
    found = worst(row for row in rows if row["subject"] != DEFAULT_SCHEME)
    about = None if data is None or len(experiment.victim) < LEAST else properties(experiment.victim)
    if as_json:
        for row in [*rows, *leaks]:
            emit(row)
        if about is not None:
            emit({"corpus": experiment.name, "properties": about})
    else:
        table(_TITLES, [_line(row) for row in found])
        if leaks:
            table(_PROBED, [_probed(row) for row in worst_probes(leaks)])
        if about is not None:
            note(about["sentence"])
    return int(
        any(r["identified"] > LIMIT and r["chance"] < LIMIT and not r["pairs"] and not _control(r) for r in found)
    )


def _check(
    collection: str | None, data: str | None, labels: str | None, people: bool, probes: bool, choices: dict[str, Any]
) -> None:
    """Refuse options that do not go together."""
    if collection is not None:
        if probes:
            raise click.UsageError("--probes does not go with --collection: probes encrypt vectors under two keys")
        given = {"--data": data, "--subject": choices["names"], "-k": choices["dims"], "--cells": choices["cells"]}
        for option, value in {**given, "--beta": choices["beta"], "--jobs": choices["jobs"]}.items():
            if value not in (None, (), False):
                raise click.UsageError(f"{option} does not go with --collection: it is attacked as it is stored")
    if people and not probes:
        raise click.UsageError("--people goes with --probes")
    if people and labels is None:
        raise click.UsageError("--people goes with --labels")


def _only_a_store(*others: Any) -> bool:
    """Say whether a store was named, and nothing to attack."""
    typed = click.get_current_context().get_parameter_source("store") is ParameterSource.COMMANDLINE
    return typed and not any(others)


def _view(place: Place, before: str | None, html: Path | None, as_json: bool) -> int:
    """Say what a copy of the store tells without a key."""
    from ..lab.leakage import beginnings, compared, hauls, stolen, told
    from ..lab.leakage.report import write
    from ..lab.leakage.sealed import Copied

    copy = stolen(place.store_url)
    lines = told(copy) + beginnings(copy) + ([] if before is None else compared(stolen(before), copy))
    if html is not None:
        write(html, [Copied.from_haul(haul).row() for haul in hauls(copy).values()], _command(), lines)
    if as_json:
        for line in lines:
            emit(line.to_dict())
    else:
        table(["collection", "what", "how much", "what it tells"], [list(line.to_dict().values()) for line in lines])
    return 0


def _list(as_json: bool) -> None:
    from ..lab.leakage import ATTACKS, PROBES, SUBJECTS

    if as_json:
        about = {a.name: {"needs": a.holds, "views": list(a.views), "source": a.source} for a in ATTACKS.values()}
        emit({"subjects": list(SUBJECTS), "attacks": about, "probes": list(PROBES)})
        return
    table(["subject"], [[name] for name in SUBJECTS])
    table(["attack", "needs", "source"], [[a.name, a.holds, a.source] for a in ATTACKS.values()])
    table(["probe"], [[name] for name in PROBES])


def _nothing(target: Collection, html: Path | None, as_json: bool) -> int:
    """Say that a store holds no index vectors of a collection."""
    if html is not None:
        from ..lab.leakage.report import write

        write(html, [sealed_copy(target)], _command())
    if as_json:
        emit({"collection": target.name, "indexed": False})
    else:
        note(f"{target.name} is sealed: the store holds no index vectors of it, so there is nothing to attack")
    return 0


def _command() -> str:
    """What was typed, as it would be typed again. Nothing of it is a secret."""
    context = click.get_current_context()
    words = ["encvec", "leakage"]
    for option in context.command.params:
        name = option.name or ""
        if name in ("store", "keys", "folder"):  # a page is for others to read: where the store is stays out of it
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        flag = max(option.opts, key=len)
        if value is True:
            words.append(flag)
        else:
            words += [word for one in (value if isinstance(value, tuple) else (value,)) for word in (flag, str(one))]
    return shlex.join(words)


def _control(row: dict[str, Any]) -> bool:
    from ..lab.leakage.subjects import CONTROLS

    return row["subject"] in CONTROLS


_TITLES = ("subject", "n", "adversary", "pairs", "best attack", "identified %", "median %", "95% from", "to",
           "chance %", "cosine", "k", "beta", "re-ranked", "recall@10")  # fmt: skip


def _line(row: dict[str, Any]) -> list[Any]:
    share = (row["identified"], row["identified_median"], row["ci_low"], row["ci_high"], row["chance"])
    return [
        row["subject"],
        row["n"],
        "+".join(row[name] for name in ("adversary", "beside") if name in row),
        row["pairs"],
        ", ".join(row[name] for name in ("attack", "view", "cells") if name in row),
        *(round(100 * value, 2) for value in share),
        row["cosine_centered"],
        row["parameters"].get("k"),
        row["parameters"].get("beta"),
        row["candidates"],
        row["recall@10"][str(row["candidates"])],
    ]


_PROBED = ("subject", "n", "probe", "measure", "worst", "median", "by luck", "keys")


def _probed(row: dict[str, Any]) -> list[Any]:
    figures = (round(row[name], 4) for name in ("value", "median", "null"))
    return [row["subject"], row["n"], row["probe"], row["measure"], *figures, row["keys"]]
