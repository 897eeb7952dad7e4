"""How often one key may encrypt with random nonces.

Of n random 96-bit nonces, two are the same with a probability of about n^2 / 2^97, and then AES-GCM gives away both
messages and its authentication key. NIST SP 800-38D, 8.3, allows 2^32 encryptions under one key, which is 2^-33.
"""

from __future__ import annotations

import logging

from ..errors import KeyExhaustedError

__all__ = ["MOST", "WARN", "check_seals"]

WARN = 1 << 31
MOST = 1 << 32
log = logging.getLogger("encvec_store")


def check_seals(before: int, n: int, version: int, what: str) -> None:
    """Check that n more encryptions are within the limit, and warn in its second half.

    Args:
        before: encryptions under the key so far.
        n: how many more.
        version: number of the key version.
        what: whose key it is, for the message.

    Raises:
        KeyExhaustedError: there would be more than `MOST`.
    """
    if before + n > MOST:
        raise KeyExhaustedError(
            f"key version {version} of {what} has encrypted {before:,} records, and may encrypt {MOST:,}: call "
            "keyset.rotate() (`encvec keys rotate`), and new writes use the new version. Nothing was written; records "
            "under the old version stay readable"
        )
    if before + n > WARN:
        log.warning(
            "key version %d of %s has encrypted %d of at most %d records: rotate the keyset soon",
            version,
            what,
            before + n,
            MOST,
        )
