"""Encrypt a file of vectors with ironcore-alloy. Runs in `.venv-peers`.

Usage: python encrypt.py GIVEN MADE DIM BETA KEY

GIVEN and MADE hold float32 numbers, one vector after another. The secret is derived from the number KEY: such
keys are only for measuring.
"""

from __future__ import annotations

import array
import asyncio
import hashlib
import sys
from pathlib import Path


async def encrypted(values: array.array[float], dim: int, beta: float, key: int) -> array.array[float]:
    """Encrypt the vectors that follow each other in `values`."""
    import ironcore_alloy as alloy  # type: ignore[import-not-found,unused-ignore]

    secret = alloy.StandaloneSecret(1, alloy.Secret(hashlib.sha256(b"measured %d" % key).digest()))
    vectors = {"": alloy.VectorSecret(beta, alloy.RotatableSecret(secret, None))}
    client = alloy.Standalone(alloy.StandaloneConfiguration(alloy.StandardSecrets(None, []), {}, vectors)).vector()
    metadata = alloy.AlloyMetadata.new_simple("tenant")
    batch = {
        str(start): alloy.PlaintextVector(
            plaintext_vector=list(values[start : start + dim]), secret_path="", derivation_path=""
        )
        for start in range(0, len(values), dim)
    }
    result = await client.encrypt_batch(batch, metadata)
    if result.failures:
        raise SystemExit(str(next(iter(result.failures.values()))))
    made = array.array("f")
    for start in range(0, len(values), dim):
        made.extend(result.successes[str(start)].encrypted_vector)
    return made


def main() -> None:
    """Read, encrypt, write."""
    values = array.array("f")
    values.frombytes(Path(sys.argv[1]).read_bytes())
    made = asyncio.run(encrypted(values, int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])))
    Path(sys.argv[2]).write_bytes(made.tobytes())


if __name__ == "__main__":
    main()
