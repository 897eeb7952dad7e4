"""Install the peers: `make peers`; --outsiders adds the benchmarks that run us, --embedded plaintext stores."""

from __future__ import annotations

import sys

from benchmarks.peers import EMBEDDED, OUTSIDERS, PEERS, missing

if __name__ == "__main__":
    wanted: dict[str, tuple[str, ...]] = dict(PEERS)
    for option, packages in (("--outsiders", OUTSIDERS), ("--embedded", EMBEDDED)):
        wanted |= packages if option in sys.argv else {}
    for name, of in wanted.items():
        reason = missing(name)
        print(f"{name} is left out: {reason}" if reason else f"{of[0]} is ready", flush=True)
