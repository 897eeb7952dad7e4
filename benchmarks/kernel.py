"""Measure how fast index vectors are encrypted on one core, beside plain memory copies and matrix products.

Usage: python -m benchmarks.kernel [--quick] [--peers]

Every repeat times these in turn, on the same unit vectors:

    sap     the scheme's `encrypt`: nonce of each record (PMAC of token and point), rotation, scale, noise of the ball
    sketch  the same for a third of the dimensions: one product projects, whitens and rotates
    copy    numpy.copyto of the vectors: the cost of moving the bytes
    sgemm   numpy.matmul by a (d, d) float32 matrix: the least cost of the rotation
    nonces  the part of `sap` that makes the nonces
    noise   the part of `sap` that makes the keystream and the noise

With --peers it also measures ironcore-alloy (shuffle and the same noise ball), in a separate environment; see
`benchmarks.peers`. Rates are those of the fastest repeat, with the median beside it: on a shared machine the fastest
repeat was disturbed least.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from benchmarks import peers
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store.schemes import PER_DIMENSION, Sketch, add_ball_noise, scheme
from encvec_store.schemes import fit_profile as fit

DIMS = (384, 768, 1536)
BETA = 2.0
FLOATS = 1 << 22  # 16 MiB of float32: larger than the second-level cache, like a batch of an upsert
TARGET = 100_000


def rates(dim: int, *, floats: int, repeats: int, rounds: int, with_peers: bool) -> list[Row]:
    """Time the kernels at one dimension; returns one row each."""
    n = max(PER_DIMENSION * (dim // 3), floats // dim)
    draw = np.random.default_rng(dim)
    points = draw.standard_normal((n, dim), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    tokens = draw.integers(0, 256, (n, 16), np.uint8)
    matrix = np.linalg.qr(draw.standard_normal((dim, dim)))[0].astype(np.float32)
    keyed: Any = scheme({"name": "sap", "beta": BETA}).keyed(os.urandom(32), ("", "bench", b""), dim)
    profile = fit(points).profile(dim // 3)
    sketch = Sketch(beta=BETA).fitted(profile).keyed(os.urandom(32), ("", "bench", b""), dim, profile)
    out, noise = np.empty_like(points), keyed.noise
    nonces = noise.nonces.tags(tokens, points.view(np.uint8))
    kernels: dict[str, Callable[[], Any]] = {
        "sap": lambda: keyed.encrypt(points, tokens, points),
        "sketch": lambda: sketch.encrypt(points, tokens, points),
        "copy": lambda: np.copyto(out, points),
        "sgemm": lambda: np.matmul(points, matrix, out=out),
        "nonces": lambda: noise.nonces.tags(tokens, points.view(np.uint8)),
        "noise": lambda: add_ball_noise(noise.stream, nonces, BETA / 4, out),
    }
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for kernel in kernels.values():
        kernel()
    peer: dict[str, list[float]] = {}
    for _ in range(rounds):  # ours and the peer in turn, so that both meet the same load of the machine
        for _ in range(repeats):
            for name, kernel in kernels.items():
                start = time.perf_counter()
                kernel()
                times[name].append((time.perf_counter() - start) / n)
        if with_peers:
            for name, measured in peers.ironcore(dim, BETA, repeats).items():
                peer.setdefault(name, []).extend(measured)
    ours = min(times["sap"])
    return [
        {
            "bench": "kernel",
            "kernel": name,
            "d": dim,
            "n": n if name in kernels else peers.BATCH,
            "beta": BETA,
            "per_s": 1 / min(taken),
            "per_s_median": 1 / statistics.median(taken),
            "us": 1e6 * min(taken),
            "sap_takes": ours / min(taken),
            "repeats": len(taken),
        }
        for name, taken in {**times, **peer}.items()
    ]


def run(quick: bool, show: Show, *, with_peers: bool = False) -> tuple[list[Row], list[Target]]:
    """Measure every dimension."""
    missing = peers.missing() if with_peers else None
    if missing:
        show.note(f"ironcore-alloy is left out: {missing}")
    rows: list[Row] = []
    size = {"floats": 1 << 18, "repeats": 3, "rounds": 1} if quick else {"floats": FLOATS, "repeats": 7, "rounds": 3}
    for dim in show.each(DIMS[:2] if quick else DIMS, "kernel", lambda dim: f"d={dim}"):
        rows += rates(dim, with_peers=with_peers and not missing, **size)
    show.table("Encryption of index vectors: fastest of the repeats, one core", rows)
    got = {row["kernel"]: row["per_s"] for row in rows if row["d"] == 384}
    named = {"sap": "sap, d=384", "sketch": "sketch, d=384, k=128"}
    targets = [Target(f"{text}, vectors/s on one core", got[name], ">=", TARGET) for name, text in named.items()]
    (copied,) = (row["sap_takes"] for row in rows if (row["d"], row["kernel"]) == (768, "copy"))
    return rows, [*targets, Target("sap, d=768, over a copy of the bytes", copied, "<=", 8)]


@click.command()
@options
@click.option("--peers", "with_peers", is_flag=True, help="Also measure ironcore-alloy, installed on first use.")
def main(quick: bool, as_json: bool, out: str | None, with_peers: bool) -> None:
    """Measure the encryption kernel."""
    publish("kernel", lambda show: run(quick, show, with_peers=with_peers), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.kernel")
    main()
