"""Install the peers: `make peers`. Imports benchmarks.peers."""

from __future__ import annotations

from benchmarks.peers import PEERS, missing

if __name__ == "__main__":
    for name, packages in PEERS.items():
        reason = missing(name)
        print(f"{name} is left out: {reason}" if reason else f"{packages[0]} is ready", flush=True)
