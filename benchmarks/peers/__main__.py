"""Install the peers: `make peers`; with --outsiders also the benchmarks that run us."""

from __future__ import annotations

import sys

from benchmarks.peers import OUTSIDERS, PEERS, missing

if __name__ == "__main__":
    for name, packages in {**PEERS, **(OUTSIDERS if "--outsiders" in sys.argv else {})}.items():
        reason = missing(name)
        print(f"{name} is left out: {reason}" if reason else f"{packages[0]} is ready", flush=True)
