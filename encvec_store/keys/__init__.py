"""Where keysets live and what wraps them: one provider a file, found by URI; imports errors.

file:PATH    JSON file, wrapped by a passphrase (Argon2id, or scrypt)
env:NAME     environment variable with an unwrapped keyset; the environment is the secret's carrier
memory:      this process only; for tests and trials
"""

from __future__ import annotations

from .base import KeysetHome
from .uri import PROVIDERS, home

__all__ = ["PROVIDERS", "KeysetHome", "home"]
