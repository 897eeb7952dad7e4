"""Install the peers: `make peers`. Imports benchmarks.peers."""

from __future__ import annotations

from benchmarks.peers import IRONCORE, missing

if __name__ == "__main__":
    reason = missing()
    print(f"ironcore-alloy is left out: {reason}" if reason else f"{IRONCORE} is ready")
