"""Photographs to embeddings, and the experiment that rebuilds faces from stolen ones, as commands.

Usage: python -m benchmarks.faces.command embed PHOTOS... | run ...      (`make faces` sets up torch and runs the whole)
"""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from encvec_store.cli.app import run as run_command
from encvec_store.cli.common import Failure, help_if_alone
from encvec_store.cli.output import emit, note, progress, table

__all__ = ["bar", "main", "returned", "show"]


@click.group(short_help="Embed photographs, and show what a thief of embeddings gets.", invoke_without_command=True)
@click.pass_context
def faces(context: click.Context) -> None:
    """Embed photographs of faces, and show what a thief of embeddings gets.

    Needs SciPy, and for real models torch and Pillow. Models come from installed packages, photographs from your own
    folders: nothing is downloaded.
    """
    help_if_alone(context)


@faces.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="JSON lines for `encvec ingest`: id, vector, photo.")  # fmt: skip
@click.option("--weights", metavar="DIR", type=click.Path(path_type=Path), help="Folder `model` of face-api.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def embed(photos: tuple[Path, ...], out: Path, weights: Path | None, as_json: bool) -> int:
    """Find the largest face of each photograph, turn it upright, embed it with FaceNet.

    Folders are searched for .jpg, .jpeg and .png files.

    \b
    Example:
      python -m benchmarks.faces.command embed photos/ --out faces.jsonl
      encvec ingest people faces.jsonl

    The exit code is 1 if a photograph shows no face, or a file is no picture. The others are still embedded.
    """
    from .portraits import pictures, portraits

    files = pictures(photos)
    if not out.parent.is_dir():
        raise click.UsageError(f"{out.parent}: no such folder")
    _need("torch", "PIL")
    from .detect import Detector
    from .models import load_model

    detector, model = Detector(weights), load_model("facenet")
    missed: dict[str, str] = {}
    scratch = out.with_name(f".{out.name}.tmp")
    try:
        with progress("embedding", len(files)) as advance, scratch.open("w", encoding="utf-8") as file:
            for found in portraits(files, detector, model):
                if found.vector is None:
                    missed[str(found.path)] = found.why
                else:
                    line = {"id": str(found.path), "vector": found.vector.tolist(), "photo": found.path.name}
                    file.write(json.dumps(line) + "\n")
                advance(1, None)
        os.replace(scratch, out)
    finally:
        scratch.unlink(missing_ok=True)
    embedded = len(files) - len(missed)
    if as_json:
        emit({"embedded": embedded, "missed": missed, "out": str(out)})
    else:
        for name, why in missed.items():
            note(f"{why}: {name}")
        click.echo(f"{embedded} faces embedded into {out}")
    return int(bool(missed))


@faces.command()
@click.option("--data", metavar="FILE", type=click.Path(exists=True, path_type=Path),
              help="Photographs: .npz with images and labels, such as benchmarks/data/olivetti-64.npz.")  # fmt: skip
@click.option("--lfw", metavar="DIR", envvar="ENCVEC_LFW",
              type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Or your own copy of Labeled Faces in the Wild.")  # fmt: skip
@click.option("--out", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for all output; a stopped run continues there.")  # fmt: skip
@click.option("--model", type=click.Choice(["facenet", "fisherfaces"]), default="facenet", show_default=True,
              help="Model to attack.")  # fmt: skip
@click.option("--second", type=click.Choice(["face-api", "texture", "none"]), default="face-api", show_default=True,
              help="Second model, which judges and which the thief does not have.")  # fmt: skip
@click.option("--weights", metavar="DIR", type=click.Path(path_type=Path), help="Folder `model` of face-api.")
@click.option("--people", type=click.IntRange(2), default=20, show_default=True, help="Number of people to attack.")
@click.option("--iterations", type=click.IntRange(1), multiple=True, default=(400, 2000), show_default=True,
              help="Iterations of the black-box loop; repeat for more figures.")  # fmt: skip
@click.option("--climb", type=click.IntRange(0), default=60, show_default=True, help="Iterations of the gradient loop.")
@click.option("--pool", type=click.IntRange(2), default=2000, show_default=True, help="Number of pre-generated faces.")
@click.option("--components", type=click.IntRange(2), default=256, show_default=True, help="Most generator components.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Attacks to run at the same time.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the results document.")
def run(
    data: Path | None,
    lfw: Path | None,
    out: Path,
    model: str,
    second: str,
    weights: Path | None,
    people: int,
    iterations: tuple[int, ...],
    climb: int,
    pool: int,
    components: int,
    jobs: int,
    seed: int,
    as_json: bool,
) -> int:
    """Store photographs' embeddings encrypted, steal them, and rebuild the faces.

    Half of the people are the thief's own; some of the others are attacked. Writes results.json and page.html into the
    folder. The page may hold the photographs: mind their terms. The input is labelled photographs, never a stolen
    vector.

    \b
    Examples:
      python -m benchmarks.faces.command run --data olivetti-64.npz --model fisherfaces --second texture --out run
      ENCVEC_LFW=lfw python -m benchmarks.faces.command run --out run-lfw

    The exit code is 1 if faces come back from ciphertexts of `sketch` without known pairs: if the lower end
    of the interval is above chance.
    """
    if (data is None) == (lfw is None):
        raise click.UsageError("name photographs: --data FILE, or --lfw DIR")
    _need("scipy", *(("torch",) if model == "facenet" or second == "face-api" else ()))
    from .experiment import Experiment
    from .photographs import load
    from .recognisers import recognisers
    from .running import whole
    from .setting import Settings

    photographs = load(data or lfw or Path())
    settings = Settings(people, iterations, climb, pool, components, seed=seed)
    attacked, judge = recognisers(photographs, settings, model, second, weights)
    results = whole(Experiment(out, photographs, attacked, judge, settings, bar, jobs=jobs), _command())
    if as_json:
        emit(results)
    else:
        show(results)
        click.echo(f"\n{out / 'page.html'}")
    return int(returned(results))


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, as `encvec` does."""
    return run_command(args, faces, "python -m benchmarks.faces.command")


def show(results: dict[str, Any]) -> None:
    """Print the headline table."""
    judges = [(results["model"]["name"], results["accepted_at_far_1e-3"])]
    if results["second_model"]:
        judges.append((results["second_model"]["name"], results["second_model"]["accepted_at_far_1e-3"]))
    names = [name for name, _ in judges]
    rows = [[key, *(round(100 * shares.get(key, 0.0), 3) for _, shares in judges)] for key in judges[0][1]]
    table([f"accepted %, {results['people']} people, {results['iterations']} iterations", *names], rows)


def returned(results: dict[str, Any]) -> bool:
    """Return True if faces come back from `sketch` without known pairs."""
    way, judge = f"search@{results['iterations']}", results["model"]["name"]
    chance = results["chance"][judge]["accepted"]
    names = ("encrypted", "encrypted_normalised", "wrong_key", "aligned_0")
    return any(results["details"][name][way][judge]["interval"][0] > chance for name in names)


@contextmanager
def bar(title: str, total: int) -> Iterator[Any]:
    """A progress bar of so many steps; gives what moves it on."""
    with progress(title, total) as advance:
        yield lambda steps: advance(steps, None)


def _need(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise Failure("ImportError", f"{name} is not installed: pip install torch scipy pillow")


def _command() -> str:
    """Return the typed command without folders: results hold no paths of a machine."""
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", "benchmarks.faces.command", *words])


if __name__ == "__main__":
    sys.exit(main())
