"""`encvec leakage`: what ciphertexts give away, by attack."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from click.core import ParameterSource

from ..data.arrays import Matrix
from ..errors import InputError
from .columns import Columns
from .common import LIMIT, Failure
from .output import emit, progress, table
from .readers import open_reader

__all__ = ["leakage"]

_BATCH = 10_000


@click.command()
@click.option("--data", metavar="FILE", help="Vectors to protect: npy, parquet, jsonl, hdf5 [default: built-in ones].")
@click.option("--corpus", metavar="FILE", help="The adversary's vectors, none of the first [default: half of FILE].")
@click.option(
    "--subject", "names", multiple=True, metavar="NAME", help="What to attack; again for more [default: sketch]."
)
@click.option(
    "--attack", "attacks", multiple=True, metavar="NAME", help="Attacks to run; again for more [default: all]."
)
@click.option("--adversary", "adversaries", multiple=True, type=click.Choice(["disjoint", "same", "superset"]),
              default=("disjoint", "same"), show_default=True, help="What the adversary's corpus is.")  # fmt: skip
@click.option(
    "-n", "--records", "sizes", type=click.IntRange(10), multiple=True, help="Records under one key; again for more."
)
@click.option(
    "--pairs", type=click.IntRange(1), multiple=True, help="Known pairs, for attacks that need them; again for more."
)
@click.option("--probes", is_flag=True, help="Also ask what leaks beside names: linkage of two keys, membership, ...")
@click.option("--labels", metavar="FILE", help="npy: a label of each vector of --data, then of --corpus; for --probes.")
@click.option("--people", is_flag=True, help="The labels tell who is shown, not what a text is about.")
@click.option("-k", "--dims", type=click.IntRange(1), help="Dimensions of a sketch [default: half of the data's].")
@click.option("--cells", type=click.IntRange(1), help="Parts of a collection, each under a rotation of its own.")
@click.option("--beta", type=click.FloatRange(0), default=2.0, show_default=True, help="Noise.")
@click.option("--keys", type=click.IntRange(1), default=3, show_default=True, help="Keys tried; the worst counts.")
@click.option(
    "--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keep rows here, and go on."
)
@click.option(
    "--html", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the report page here."
)
@click.option("--rows", "kept", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Attack nothing: report on rows that --out kept.")  # fmt: skip
@click.option("--quick", is_flag=True, help="One key, few records, the strongest attacks.")
@click.option("--list", "show", is_flag=True, help="List subjects and attacks.")
@click.option("--json", "as_json", is_flag=True, help="Print every trial as a JSON line.")
def leakage(
    data: str | None,
    corpus: str | None,
    names: tuple[str, ...],
    attacks: tuple[str, ...],
    adversaries: tuple[str, ...],
    sizes: tuple[int, ...],
    pairs: tuple[int, ...],
    probes: bool,
    labels: str | None,
    people: bool,
    dims: int | None,
    cells: int | None,
    beta: float,
    keys: int,
    out: Path | None,
    html: Path | None,
    kept: Path | None,
    quick: bool,
    show: bool,
    as_json: bool,
) -> int:
    """Attack index vectors without the key; count who is found.

    Every attack that applies is tried, by an adversary who holds other vectors of the kind (disjoint), the very same
    ones unordered (same), or these among others (superset). The worst row of each subject is printed, with chance and
    with the honest user's recall@10 in 100 candidates from the same ciphertexts. Controls (plain, public-constant,
    shuffle, haar, and sketches with one step wrong) must break: a test that they pass is no test.

    With --cells all are attacked together and each by itself; known pairs all lie in one cell, and its records are told
    from those of the others.

    With --probes also: whether two dumps under two keys can be linked (ISO/IEC 24745 unlinkability and renewability,
    D_sys), whether a text is stored, what averaging, own records and lengths give away; with --labels what a record
    is about, with --people who is found by other pictures, and the honest user's error rates.

    \b
    Examples:
      encvec leakage --quick
      encvec leakage --data docs.npy --subject sap --subject sketch --beta 2.5 -n 500 -n 4000
      encvec leakage --data docs.npy --corpus public.npy --subject sketch -k 192 --json
      encvec leakage --data faces.npy --labels persons.npy --people --probes --html report.html
      encvec leakage --rows rows.jsonl --html report.html

    Exit code 1 where more than 1% of the records of a subject that is no control are identified without pairs.
    """
    if importlib.util.find_spec("scipy") is None:
        raise Failure("ImportError", "scipy is not installed: pip install 'encvec-store[leakage]'")
    from ..lab.leakage import ATTACKS, PROBES, SUBJECTS, Experiment, probe, run, subject, worst, worst_probes
    from ..lab.leakage.data import text_like
    from ..lab.leakage.report import write

    if not probes and (labels is not None or people):
        raise click.UsageError("--labels and --people go with --probes")
    if people and labels is None:
        raise click.UsageError("--people goes with --labels")
    if kept is not None and html is None:
        raise click.UsageError("--rows goes with --html")
    if html is not None and not html.parent.is_dir():
        raise click.UsageError(f"--html: there is no folder {html.parent}")  # said now, not after hours of attacks
    if kept is not None and html is not None:
        write(html, kept.read_text(encoding="utf-8", errors="replace").split("\n"), _command())
        return 0
    if show:
        if as_json:
            held = {name: attack.holds for name, attack in ATTACKS.items()}
            emit({"subjects": list(SUBJECTS), "attacks": held, "probes": list(PROBES)})
        else:
            table(["subject"], [[name] for name in SUBJECTS])
            table(["attack", "needs", "views"], [[a.name, a.holds, ", ".join(a.views)] for a in ATTACKS.values()])
            table(["probe"], [[name] for name in PROBES])
        return 0
    victim, others, known = _load(data, corpus, text_like, labels, people)
    chosen: list[str] | None = list(attacks) or None
    if quick:
        sizes, keys = sizes or (min(1000, len(victim)),), 1
        chosen = chosen or ["coordinates", "pca-icp", "components", "density"]
    if chosen is None and not pairs:
        chosen = [name for name, attack in ATTACKS.items() if attack.holds == "corpus"]
    dim = victim.shape[1]
    experiment = Experiment(
        victim,
        others,
        [(name, subject(name, dim, k=dims, beta=beta, cells=cells)) for name in names or ("sketch",)],
        chosen,
        sizes or tuple(n for n in (1000, 4000) if n <= len(victim)) or (len(victim),),
        keys,
        adversaries,
        pairs or (50,),
        Path(data).stem if data else "built-in",
    )
    with progress("attacking", experiment.trials()) as advance:
        rows = run(experiment, out, lambda done: advance(done, None))
    leaks: list[dict[str, Any]] = []
    if probes:
        trials = len(experiment.subjects) * len(experiment.sizes) * keys * len(PROBES)
        with progress("probing", trials) as advance:
            leaks = probe(experiment, known, out, lambda done: advance(done, None))
    if html is not None:
        write(html, [*rows, *leaks], _command())
    found = worst(rows)
    if as_json:
        for row in [*rows, *leaks]:
            emit(row)
    else:
        table(_TITLES, [_line(row) for row in found])
        if leaks:
            table(_PROBED, [_probed(row) for row in worst_probes(leaks)])
    return int(
        any(r["identified"] > LIMIT and r["chance"] < LIMIT and not r["pairs"] and not _control(r) for r in found)
    )


def _command() -> str:
    """What was typed, as it would be typed again; nothing of this command is a secret."""
    context = click.get_current_context()
    words = ["encvec", "leakage"]
    for option in context.command.params:
        name = option.name or ""
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
           "chance %", "cosine", "recall@10 in 100")  # fmt: skip


def _line(row: dict[str, Any]) -> list[Any]:
    share = (row["identified"], row["identified_median"], row["ci_low"], row["ci_high"], row["chance"])
    return [
        row["subject"],
        row["n"],
        row["adversary"],
        row["pairs"],
        ", ".join(row[name] for name in ("attack", "view", "cells") if name in row),
        *(round(100 * value, 2) for value in share),
        row["cosine_centered"],
        row["recall@10"].get("100"),
    ]


_PROBED = ("subject", "n", "probe", "measure", "worst", "median", "by luck", "keys")


def _probed(row: dict[str, Any]) -> list[Any]:
    figures = (round(row[name], 4) for name in ("value", "median", "null"))
    return [row["subject"], row["n"], row["probe"], row["measure"], *figures, row["keys"]]


def _load(
    data: str | None, corpus: str | None, built_in: Any, labels: str | None, people: bool
) -> tuple[Matrix, Matrix, Any]:
    from ..lab.leakage import Known

    if data is None:
        if corpus is not None or labels is not None:
            raise click.UsageError("--corpus and --labels go with --data")
        (victim, mine), (others, theirs) = built_in(6000, seed=1), built_in(6000, seed=2)
        return victim, others, Known(labels=(mine, theirs))
    victim = _read(data)
    others = victim[:0] if corpus is None else _read(corpus)
    if others.shape[1] != victim.shape[1]:
        raise InputError(f"{corpus} has vectors of {others.shape[1]}, {data} of {victim.shape[1]}")
    known = None if labels is None else _labels(labels, len(victim) + len(others))
    parts = np.arange(len(victim)), np.arange(len(others)) + len(victim)
    if corpus is None:
        if len(victim) < 40:
            raise InputError(f"{data} has {len(victim)} vectors; give at least 40, or a --corpus")
        order = np.random.default_rng(0).permutation(len(victim))
        half = len(victim) // 2
        parts = order[:half], order[half:]
        victim, others = victim[parts[0]], victim[parts[1]]
    if known is None:
        return victim, others, None
    pair = known[parts[0]], known[parts[1]]
    return victim, others, Known(identities=pair) if people else Known(labels=pair)


def _labels(path: str, count: int) -> npt.NDArray[np.int64]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no npy file of labels: {error}") from None
    if getattr(found, "shape", None) != (count,):
        raise InputError(f"{path}: one label for each of {count} vectors is wanted")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _read(path: str) -> Matrix:
    parts = [np.asarray(batch.vectors, np.float32) for batch in open_reader(path, None, Columns()).batches(_BATCH)]
    if not parts:
        raise InputError(f"{path} holds no vectors")
    vectors: Matrix = np.concatenate(parts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise InputError(f"{path}: every vector must be finite and not zero")
    vectors /= lengths
    return vectors
