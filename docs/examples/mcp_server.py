"""An MCP server over a store: `python mcp_server.py ./vectors file:keys.json`, as an assistant's settings start it.

The passphrase of the keyset stands in NOTES_PASSPHRASE. The assistant may search, and change nothing.
"""

import os
import sys
import zlib

import numpy as np

import encvec_store as ev
from encvec_store.integrations.mcp import make_server


def embed(text: str) -> list[float]:
    """Make a vector of a text's words; yours comes from a model."""
    words = [np.random.default_rng(zlib.crc32(word.encode())) for word in text.lower().split()]
    return np.sum([word.standard_normal(64) for word in words], axis=0).tolist()


def main(url: str, keys: str) -> None:
    """Serve until the assistant closes its end."""
    keyset = ev.Keyset.open(keys, passphrase=os.environ["NOTES_PASSPHRASE"])
    with ev.connect(url, keyset=keyset) as store:
        make_server(store, embed=embed).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
