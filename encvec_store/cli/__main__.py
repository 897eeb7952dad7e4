"""`python -m encvec_store.cli`, the same as `encvec`."""

from __future__ import annotations

from . import main

if __name__ == "__main__":
    main()
