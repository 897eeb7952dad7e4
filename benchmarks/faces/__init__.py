"""What a stolen face embedding gives away, and that everything else works encrypted. Needs the extra `faces`.

Photographs are embedded by a real recognition model, stored encrypted, stolen, and turned back into faces by the
published attack: from plaintext, from ciphertexts, and after all that a thief can do without the key. docs/faces.md
tells what is measured and what it does not show. Everything takes labelled photographs, nothing takes a stolen vector.
"""

from __future__ import annotations

__all__: list[str] = []
