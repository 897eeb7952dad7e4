"""Measure the rates of ironcore-alloy's vector encryption, and print JSON. Runs in `.venv-peers`.

Usage: python ironcore.py DIM BETA REPEATS [CPU]

Two rates, each one `encrypt_batch` of BATCH vectors on one CPU:

    api     as a Python program calls it: lists of float in, objects out
    core    the compiled call alone: arguments are serialised before, and the result is freed unread. It still reads
            and writes the byte buffers of its foreign-function interface, as any binding must
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from typing import Any

BATCH = 200


async def measure(dim: int, beta: float, repeats: int) -> dict[str, Any]:
    """Time both calls: seconds for BATCH vectors. The first, which takes a hundred times as long, once."""
    import ironcore_alloy as alloy  # type: ignore[import-not-found,unused-ignore]
    from ironcore_alloy import ironcore_alloy as bindings  # type: ignore[import-not-found,unused-ignore]

    secret = alloy.StandaloneSecret(1, alloy.Secret(os.urandom(32)))
    vectors = {"": alloy.VectorSecret(beta, alloy.RotatableSecret(secret, None))}
    client = alloy.Standalone(alloy.StandaloneConfiguration(alloy.StandardSecrets(None, []), {}, vectors)).vector()
    metadata = alloy.AlloyMetadata.new_simple("tenant")
    draw = random.Random(0)
    batch = {}
    for i in range(BATCH):
        values = [draw.gauss(0, 1) for _ in range(dim)]
        length = sum(value * value for value in values) ** 0.5
        unit = [value / length for value in values]
        batch[str(i)] = alloy.PlaintextVector(plaintext_vector=unit, secret_path="", derivation_path="")
    lib = bindings._UniffiLib

    async def core() -> float:
        arguments = (
            client._uniffi_clone_handle(),
            bindings._UniffiFfiConverterTypePlaintextVectors.lower(batch),
            bindings._UniffiFfiConverterTypeAlloyMetadata.lower(metadata),
        )
        start = time.perf_counter()
        buffer = await bindings._uniffi_rust_call_async(
            lib.uniffi_ironcore_alloy_fn_method_standalonevectorclient_encrypt_batch(*arguments),
            lib.ffi_ironcore_alloy_rust_future_poll_rust_buffer,
            lib.ffi_ironcore_alloy_rust_future_complete_rust_buffer,
            lib.ffi_ironcore_alloy_rust_future_free_rust_buffer,
            lambda result: result,
            bindings._UniffiFfiConverterTypeAlloyError,
        )
        took = time.perf_counter() - start
        assert buffer.len > BATCH * 4 * dim, "fewer vectors came back"
        buffer.free()
        return took

    async def api() -> float:
        start = time.perf_counter()
        result = await client.encrypt_batch(batch, metadata)
        took = time.perf_counter() - start
        assert len(result.successes) == BATCH, result.failures
        return took

    await api(), await core()
    return {"batch": BATCH, "api": [await api()], "core": [await core() for _ in range(repeats)]}


def main() -> None:
    """Print the times as JSON, for the caller."""
    if len(sys.argv) > 4 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[4])})
    print(json.dumps(asyncio.run(measure(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))))


if __name__ == "__main__":
    main()
