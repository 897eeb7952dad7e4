"""The face experiment: `make faces`, or `python -m benchmarks.faces`.

    make faces                                  Olivetti, 20 people, 400 iterations
    ENCVEC_LFW=DIR make faces ARGS=--full       LFW, 20 people, 400 and 2,000 iterations; writes results.json here
    make faces ARGS="--iterations 100"          less

A stopped run continues when it is run again. All output goes to `benchmarks/faces/out`, which git ignores, because a
page of LFW holds photographs that must not be passed on. ironcore-alloy is measured too if `make peers` installed it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faces.environment import HERE, PYTHON, ROOT, VENV, WEIGHTS, ready

OLIVETTI = ROOT / "benchmarks/data/olivetti-64.npz"
BETA = 2.5
PEOPLE = 20


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faces", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--lfw", type=Path, metavar="DIR", default=os.environ.get("ENCVEC_LFW") or None, help="a copy of LFW"
    )
    parser.add_argument("--full", action="store_true", help="400 and 2,000 iterations, and keep results.json")
    parser.add_argument("--iterations", type=int, action="append", metavar="N")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="by default benchmarks/faces/out/NAME")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code, as `python -m benchmarks.faces.command run` does."""
    args = arguments(argv)
    if Path(sys.prefix).resolve() != VENV.resolve():
        ready()
        given = sys.argv[1:] if argv is None else list(argv)
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [str(PYTHON), "-m", "benchmarks.faces", *given]
        return subprocess.run(command, cwd=ROOT, env=os.environ | one, check=False).returncode
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    from benchmarks.datasets import load as sentences
    from benchmarks.faces.command import bar, returned, show
    from benchmarks.faces.experiment import Experiment, Peer
    from benchmarks.faces.photographs import load
    from benchmarks.faces.recognisers import recognisers
    from benchmarks.faces.running import whole
    from benchmarks.faces.setting import Settings
    from benchmarks.faces.text import Sentences
    from benchmarks.peers import IRONCORE, PEERS, alloy_encrypt, missing
    from encvec_store.errors import EncvecError

    reason = missing()
    peers: dict[str, Peer] = {}
    if reason:
        print(f"ironcore-alloy is left out: {reason}", file=sys.stderr)
    else:
        name = PEERS[IRONCORE][0].replace("==", " ")
        peers["ironcore"] = lambda vectors: ({"name": name, "beta": BETA}, alloy_encrypt(vectors, BETA, 0))
    iterations = tuple(args.iterations or ((400, 2000) if args.full else (400,)))
    settings = Settings(args.people, iterations, climb=60, components=256 if args.lfw else 80)
    bank = sentences("banking77")
    texts, asked = bank.texts or [], bank.query_texts or []
    labels, others = bank.labels, bank.query_labels
    if labels is None or others is None:
        raise SystemExit("the sentences have no intents")
    try:
        photographs = load(args.lfw or OLIVETTI)
        out = args.out or HERE / "out" / photographs.name
        model, judge = recognisers(
            photographs, settings, "facenet", "face-api" if WEIGHTS.is_dir() else "none", WEIGHTS
        )
        experiment = Experiment(out, photographs, model, judge, settings, bar, peers, args.jobs)
        pair = (Sentences(bank.vectors, texts, labels), Sentences(bank.queries, asked, others))
        results = whole(experiment, _command(args), pair)
    except EncvecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(results)
    print(f"\n{out / 'page.html'}")
    if args.full:
        shutil.copy(out / "results.json", HERE / "results.json")
    return int(returned(results))


def _command(args: argparse.Namespace) -> str:
    """Return the command that gives the same results elsewhere, without folders of this machine."""
    given = ["--full"] if args.full else []
    given += [f"--iterations {count}" for count in args.iterations or ()]
    given += [] if args.people == PEOPLE else [f"--people {args.people}"]
    text = " ".join(given)
    words = "ENCVEC_LFW=DIR make faces" if args.lfw else "make faces"
    return words if not given else f'{words} ARGS="{text}"' if " " in text else f"{words} ARGS={text}"


if __name__ == "__main__":
    sys.exit(main())
