"""Every error that encvec_store raises, in one small tree.

    EncvecError
    ├── InputError (also ValueError)      the caller's data or arguments; nothing was written
    │   ├── ShapeError                    wrong number of dimensions, columns or rows
    │   ├── NonFiniteError                NaN or infinity in a vector
    │   ├── ZeroVectorError               no direction, so no cosine
    │   ├── NormError                     longer than the collection's max_norm
    │   ├── MetricError                   unknown metric
    │   ├── SchemeError                   unknown scheme, or bad parameters for one
    │   ├── IdError                       an id that is empty, too long or no string
    │   │   └── DuplicateIdError          the same id twice in one batch
    │   ├── MetadataError                 a value that cannot be stored with its type
    │   ├── FilterError                   malformed `where`
    │   │   └── UnknownFieldError         a field that the collection does not declare
    │   ├── UriError                      a store or key URI that means nothing
    │   ├── CalibrationError              no setting within the limits meets the target
    │   ├── ProfileError                  vectors that no profile can be fitted on
    │   ├── ConfigMismatchError           the collection exists with other settings
    │   └── DataLossError                 a downgrade would delete data
    ├── CollectionNotFoundError           no such collection, and too little given to create it
    ├── KeysetError                       key file missing, malformed, or refused by its passphrase
    │   └── KeyUnavailableError           the key version is disabled, destroyed or not in this keyset
    ├── PluginError                       an installed package offers something that cannot be used
    ├── AuthenticationError               wrong key, or data that was altered, moved or swapped
    └── StoreError
        ├── StoreLockedError              another process holds the write lock; try again
        ├── ReplicaLagError               a replica has not caught up with what was seen elsewhere
        ├── StaleConfigError              the collection's settings were changed by another process meanwhile
        ├── StoreUnreachableError         could not be opened, read or written; says nothing of forgery
        │   └── OutcomeUnknownError       the connection was lost at the commit: perhaps written, perhaps not
        └── StoreClosedError              used after close()

A failed authentication never says why: the difference between a wrong key and a forged byte
is of use to a forger only. "Could not check" (`StoreUnreachableError`) is never reported as "wrong".
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "CalibrationError",
    "CollectionNotFoundError",
    "ConfigMismatchError",
    "DataLossError",
    "DuplicateIdError",
    "EncvecError",
    "FilterError",
    "IdError",
    "InputError",
    "KeyUnavailableError",
    "KeysetError",
    "MetadataError",
    "MetricError",
    "NonFiniteError",
    "NormError",
    "OutcomeUnknownError",
    "PluginError",
    "ProfileError",
    "ReplicaLagError",
    "SchemeError",
    "ShapeError",
    "StaleConfigError",
    "StoreClosedError",
    "StoreError",
    "StoreLockedError",
    "StoreUnreachableError",
    "UnknownFieldError",
    "UriError",
    "ZeroVectorError",
]


class EncvecError(Exception):
    """Base of every error raised by this package."""


class InputError(EncvecError, ValueError):
    """The caller's data or arguments are unusable; nothing was written."""


class ShapeError(InputError):
    """An array has the wrong shape or dtype."""


class NonFiniteError(InputError):
    """A vector holds NaN or infinity."""


class ZeroVectorError(InputError):
    """A vector of length zero has no direction, so it has no cosine with anything."""


class NormError(InputError):
    """A vector is longer than the collection's `max_norm`."""


class MetricError(InputError):
    """The metric is not one of cosine, l2, ip."""


class SchemeError(InputError):
    """The encryption scheme is unknown or its parameters are out of range."""


class IdError(InputError):
    """A record id is empty, too long or not a string."""


class DuplicateIdError(IdError):
    """The same id stands twice in one batch."""


class MetadataError(InputError):
    """A metadata value cannot be stored with its type."""


class FilterError(InputError):
    """A `where` filter is malformed."""


class UnknownFieldError(FilterError):
    """A filter names a field that the collection does not declare."""


class UriError(InputError):
    """A store or key URI has no known scheme or lacks a part."""


class CalibrationError(InputError):
    """No setting within the limits given meets the recall target."""


class ProfileError(InputError):
    """A sample is too small or too uniform for a profile to be fitted on, or a profile is not what it should be."""


class ConfigMismatchError(InputError):
    """The collection exists already, with settings other than those asked for."""


class DataLossError(InputError):
    """A downgrade would delete data that the earlier tables have no place for; nothing was changed."""


class CollectionNotFoundError(EncvecError, LookupError):
    """There is no such collection, and not enough was given to create it."""


class KeysetError(EncvecError):
    """A keyset is missing, malformed, or refused by its passphrase."""


class KeyUnavailableError(KeysetError):
    """A key version is disabled, destroyed, or not in this keyset."""


class PluginError(EncvecError):
    """An installed package offers a store, keyset storage, key wrapper or command that cannot be loaded."""


class AuthenticationError(EncvecError):
    """Wrong key, or data that was altered, moved or swapped. Never says which."""


class StoreError(EncvecError):
    """The store itself failed."""


class StoreLockedError(StoreError):
    """Another process holds the write lock; nothing was written and a retry may succeed."""


class StaleConfigError(StoreError):
    """The collection's settings were changed by another process meanwhile; nothing was written."""


class ReplicaLagError(StoreError):
    """A store that was opened as a replica has not caught up with what this process has seen elsewhere."""


class StoreUnreachableError(StoreError):
    """The store could not be opened, read or written."""


class OutcomeUnknownError(StoreUnreachableError):
    """The connection was lost while a write was committed: whole, or not at all. The same write again is safe."""


class StoreClosedError(StoreError):
    """The store or collection was used after `close()`."""
