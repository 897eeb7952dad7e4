"""Memory and opening time of a variant, in a fresh process that does nothing else.

Keys go to the child through its environment, and they are the bench's own, made for the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["serve"]

_CHILD = Path(__file__).with_name("child.py")
_PACKAGES = Path(__file__).parents[2]
QUERIES = 200


def serve(job: Mapping[str, Any]) -> dict[str, float | None]:
    """Run a job of `child` and return its report.

    peak_mb: most resident memory, libraries and touched pages of mapped files with it. private_mb: memory at the end
    that no file backs. library_mb, library_private_mb: the same before anything was opened. open_s: seconds until
    the first answer.

    Args:
        job: kind "plain" with index (a path), effort or ef_search; or "store" with url, options, keys (a URI), name,
            oversample, reranked. Both: queries (path of a .npy file) and k.
    """
    paths = os.pathsep.join(filter(None, [str(_PACKAGES), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", str(_CHILD)],
        input=json.dumps(dict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    report: dict[str, float | None] = json.loads(done.stdout)
    return report
