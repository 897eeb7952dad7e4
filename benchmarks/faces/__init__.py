"""Measure what a stolen face embedding gives away, and what still works on encrypted ones. Needs the extra `faces`.

A real recognition model embeds photographs; they are stored encrypted, stolen, and turned back into faces by the
published attack: from plaintext, from ciphertexts, and from what a thief can make of these without the key.
docs/faces.md tells what is measured and what it does not show. All input is labelled photographs, never a stolen
vector.
"""

from __future__ import annotations

__all__: list[str] = []
