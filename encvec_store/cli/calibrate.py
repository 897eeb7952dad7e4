"""`encvec calibrate`: the most noise that keeps a recall target, for server-ranked schemes."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..errors import CalibrationError, InputError, ShapeError
from ..maintenance.calibrate import MAX_SAMPLE, Attack, Calibration
from ..transfer.batch import sound
from .columns import Columns
from .common import LIMIT, Failure, Place, need, open_collection, open_store, place_options, tenant_option
from .output import emit, facts, note, progress, table
from .readers import open_reader

__all__ = ["calibrate"]


@click.command()
@click.argument("collection")
@click.option("--target-recall", type=float, default=0.99, show_default=True, help="Share of the true K to be found.")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Hits that searches will ask for.")
@click.option("--max-candidates", type=click.IntRange(1), help="Records re-ranked a search [default: K x oversample].")
@click.option("--planned-size", type=click.IntRange(1), help="Records to come [default: those there are].")
@click.option("--sample", metavar="FILE", help="Vectors like those to be stored [default: the collection's own].")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the simulation.")
@click.option(
    "--plot", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw the frontier: .png or .html."
)
@click.option(
    "--accept-less-noise",
    "accept_less",
    is_flag=True,
    help="Apply even less noise than now, or less than the floor of `sketch`.",
)
@click.option(
    "--attack", "attacked", is_flag=True, help="Attack the sample under the noise found, and under more and less."
)
@click.option("--dry-run", is_flag=True, help="Change nothing; only report.")
@tenant_option
@place_options
def calibrate(
    collection: str,
    sample: str | None,
    plot: Path | None,
    accept_less: bool,
    attacked: bool,
    dry_run: bool,
    tenant: str,
    place: Place,
    as_json: bool,
    **choices: Any,
) -> int:
    """Find the most noise that keeps a recall, and apply it.

    This is for the server-ranked schemes, sketch and sap. The default, sealed, has no noise.

    COLLECTION is encrypted anew under the noise found, in one transaction. More noise hides more, and lowers the
    recall of the store's candidates; re-ranking makes the scores exact. The search is simulated on a sample, and the
    lower bound of its recall must meet the target. For a sketch the dimensions are chosen too.

    The exit code is 1 if no noise meets the target, or only less noise than now or than the floor, which would give
    more away. With --attack it is 1 also if the strongest attacks of the leakage lab identify more than 1% of the
    sample's vectors under the noise found; that takes minutes.

    \b
    Examples:
      encvec calibrate docs --target-recall 0.99 -k 10 --dry-run
      encvec calibrate docs --max-candidates 500 --attack --dry-run --plot frontier.html
      encvec calibrate docs --max-candidates 500 --planned-size 1000000
    """
    if plot is not None and plot.suffix != ".html" and importlib.util.find_spec("matplotlib") is None:
        raise Failure("ImportError", f"--plot {plot.name} needs matplotlib: pip install 'encvec-store[bench]'")
    attack = _attack() if attacked else None
    vectors = None if sample is None else _sample(sample)
    with open_store(place) as store:
        target = open_collection(store, collection, tenant)
        before = float(target.stats()["scheme"].get("beta") or 0.0)
        try:
            # looked at first: a target that costs noise is not met in silence
            with progress("simulating searches" if attack is None else "simulating searches, then attacking"):
                found = target.calibrate(vectors, apply=False, attack=attack, **choices)
        except CalibrationError as error:
            return _refuse(str(error), as_json)
        if found.beta < before and not (dry_run or accept_less):
            return _refuse(
                f"the target allows beta {found.beta:g} at most, which is less noise than now ({before:g}), so nothing "
                "was changed: allow more candidates with --max-candidates, or add --accept-less-noise",
                as_json,
                found,
            )
        if found.weak and not (dry_run or accept_less):
            return _refuse(f"{found.weakness()} with --accept-less-noise. Nothing was changed", as_json, found)
        if _named(found) > LIMIT and not (dry_run or accept_less):
            return _refuse(
                f"our attacks name {_named(found):.1%} of the sample's vectors at beta {found.beta:g} without the key,"
                " so nothing was changed: allow more candidates with --max-candidates, or add --accept-less-noise",
                as_json,
                found,
            )
        if not dry_run:
            report = found.attack
            with progress(f"encrypting {collection} anew") as advance:
                found = target.calibrate(
                    vectors,
                    apply=True,
                    accept_less_noise=accept_less,
                    attack=None if report is None else lambda points, scheme: report,
                    progress=advance,
                    **choices,
                )
            with progress("building the index"):
                target.flush()
    if plot is not None:
        _draw(found, plot)
    if as_json:
        emit({"ok": True, "applied": not dry_run, "beta_before": before, **found.to_dict()})
    else:
        _show(found, before, dry_run)
    return 0


def _attack() -> Attack:
    if importlib.util.find_spec("scipy") is None:
        raise Failure("ImportError", "--attack needs scipy: pip install 'encvec-store[leakage]'")
    from ..lab.leakage import SampleAttack

    return SampleAttack()


def _named(found: Calibration) -> float:
    """Return the share of the sample that attacks identified; 0 if none was run."""
    return float((found.attack or {}).get("identified", 0.0))


def _refuse(reason: str, as_json: bool, found: Calibration | None = None) -> int:
    if as_json:
        emit({"ok": False, "applied": False, "reason": reason, **(found.to_dict() if found else {})})
    else:
        note(reason)
    return 1


def _sample(file: str) -> npt.NDArray[Any]:
    """Read the vectors of a file, MAX_SAMPLE of them drawn evenly: a file may be sorted."""
    reader = open_reader(file, None, Columns(prefix="row"))
    total = reader.total or 0
    step = max(1, total // MAX_SAMPLE)
    parts: list[npt.NDArray[Any]] = []
    kept = 0
    for batch in sound(reader, MAX_SAMPLE):
        chosen = batch.vectors[-batch.positions[0] % step :: step] if reader.total else batch.vectors
        parts.append(np.asarray(chosen, np.float32))
        kept += len(chosen)
        if kept >= MAX_SAMPLE:
            break
    if not parts:
        raise InputError(f"{file} holds no records")
    if len({part.shape[1] for part in parts}) > 1:
        raise ShapeError(f"{file}: vectors of unlike length")
    return np.concatenate(parts)[:MAX_SAMPLE]


def _show(found: Calibration, before: float, dry_run: bool) -> None:
    facts(
        [
            ("scheme", found.scheme),
            ("beta", f"{found.beta:g} (before: {before:g})" + (f", floor {found.floor:g}" if found.floor else "")),
            ("dimensions", found.dimensions),
            *([] if found.gamma is None else [("gamma", found.gamma)]),
            ("oversample", found.oversample),
            ("target", f"recall@{found.k} of {found.target_recall} with {found.planned_size:,} records"),
            ("found", f"{found.recall:.4f} in simulation, {found.recall_low:.4f} as the lower bound"),
            ("sample", f"{found.sample_size:,} vectors, {found.queries} queries"),
            ("applied", "no: dry run" if dry_run else "yes: the collection was encrypted anew"),
        ]
    )
    if len(found.choices) > 1:
        click.echo(f"\nMost noise for the target with {found.k * found.oversample} re-ranked:")
        table(["dimensions", "gamma", "beta"], [[row["dimensions"], *_texts(row)] for row in found.choices])
    if found.attack:
        click.echo("\nShare of the sample's vectors that our attacks identify without the key:")
        columns = ("beta", "identified", "chance", "attack", "adversary", "n")
        table(columns, [[row[name] for name in columns] for row in found.attack["by_beta"]])
    click.echo(f"\nRecall@{found.k} by noise (beta) and records re-ranked:")
    candidates = sorted({row["candidates"] for row in found.frontier})
    recall = {(row["beta"], row["candidates"]): row["recall"] for row in found.frontier}
    betas = sorted({row["beta"] for row in found.frontier})
    table(
        ["beta", *(f"{n:g}" for n in candidates)],
        [[f"{beta:.1f}", *(f"{recall[beta, n]:.3f}" for n in candidates)] for beta in betas],
    )


def _texts(row: dict[str, Any]) -> tuple[str, str]:
    gamma = "" if row["gamma"] is None else f"{row['gamma']:g}"
    return gamma, "missed" if row["beta"] is None else f"{row['beta']:.2f}"


def _draw(found: Calibration, path: Path) -> None:
    """Write the frontier as a page, or as a picture."""
    if path.suffix == ".html":
        from ..lab.pages import calibration, shell

        try:
            shell.write(path, calibration.page(found))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error}") from None
        return
    need("matplotlib").use("Agg")
    plt = need("matplotlib.pyplot")
    panels = (3, 2, 2) if found.attack else (3, 2)
    size = (11 * sum(panels) / 5, 4.5)
    figure, (axes, right, *more) = plt.subplots(1, len(panels), figsize=size, width_ratios=panels)
    for candidates in sorted({row["candidates"] for row in found.frontier}):
        rows = [row for row in found.frontier if row["candidates"] == candidates]
        axes.plot([row["beta"] for row in rows], [row["recall"] for row in rows], label=f"{candidates:g} re-ranked")
    axes.axhline(found.target_recall, color="grey", linestyle=":")
    axes.axvline(found.beta, color="grey", linestyle=":")
    axes.set(xlabel="noise, beta", ylabel=f"recall@{found.k}", title=f"{found.sample_size:,} vectors")
    axes.legend()
    for gamma in sorted({row["gamma"] for row in found.choices}, key=lambda gamma: gamma or 0.0):
        rows = sorted(
            (row for row in found.choices if row["gamma"] == gamma and row["beta"] is not None),
            key=lambda row: row["dimensions"],
        )
        label = None if gamma is None else f"gamma {gamma:g}"
        right.plot([row["dimensions"] for row in rows], [row["beta"] for row in rows], marker="o", label=label)
    right.plot([found.dimensions], [found.beta], marker="*", markersize=14, linestyle="", label="chosen")
    if found.floor:
        right.axhline(found.floor, color="grey", linestyle=":", label="floor")
    right.set(xlabel="dimensions", ylabel="most noise for the target, beta", ylim=(0, None))
    right.legend()
    if found.attack:
        _draw_attack(more[0], found)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None
    finally:
        plt.close(figure)


def _draw_attack(axes: Any, found: Calibration) -> None:
    rows = (found.attack or {})["by_beta"]
    shares = [max(row["identified"], row["chance"] / 2) for row in rows]  # none at all has no place on this axis
    axes.semilogy([row["beta"] for row in rows], shares, marker="o", label="best attack")
    axes.axhline(rows[0]["chance"], color="grey", linestyle=":", label="chance")
    axes.axvline(found.beta, color="grey", linestyle="--", label="chosen")
    axes.set(xlabel="noise, beta", ylabel="identified without the key", ylim=(None, 1.3))
    axes.set_title(f"{rows[0]['n']:,} of the sample's vectors")
    axes.legend()
