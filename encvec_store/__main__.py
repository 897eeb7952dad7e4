"""`python -m encvec_store`, the same as `encvec`."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
