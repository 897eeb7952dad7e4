"""Every error that encvec_store raises, in one small tree.

::

    EncvecError
    ├── InputError (also ValueError)      the caller's data or arguments; nothing was written
    │   ├── ShapeError                    wrong number of dimensions, columns or rows
    │   ├── NonFiniteError                NaN or infinity in a vector
    │   ├── ZeroVectorError               no direction, so no cosine
    │   ├── NormError                     longer than the collection's max_norm
    │   ├── MetricError                   unknown metric
    │   ├── SchemeError                   unknown scheme, or bad parameters for one
    │   ├── IdError                       an id that is empty, too long or of a wrong type
    │   │   └── DuplicateIdError          the same id twice in one batch
    │   ├── MetadataError                 a metadata value or document of a wrong type
    │   ├── FilterError                   malformed `where`
    │   │   └── UnknownFieldError         a field that the collection does not declare
    │   ├── UriError                      a malformed store or key URI
    │   ├── CalibrationError              no setting within the limits meets the target
    │   ├── ProfileError                  too few vectors for a profile, or too much alike
    │   ├── ConfigMismatchError           the collection exists with other settings
    │   └── DataLossError                 a downgrade would delete data
    ├── CollectionNotFoundError           no such collection, and no dim given to create it
    ├── KeysetError                       keyset missing, malformed, or the passphrase is wrong
    │   ├── KeyUnavailableError           the key version is disabled, destroyed or not in this keyset
    │   ├── TenantErasedError             the tenant was erased: nothing of it can ever be read again
    │   ├── KeyExhaustedError             the key version has encrypted as much as it may: rotate the keyset
    │   └── KeyServiceError               the service that wraps the keyset did not do it
    │       ├── KeyDeniedError            it does not let us use the key, or does not know us
    │       ├── KeyDisabledError          the key is disabled
    │       ├── KeyDeletedError           the key is deleted, or never existed
    │       ├── KeyContextError           wrapped by another key or in another context, or altered
    │       ├── KeyThrottledError         too many requests, each time it was asked
    │       └── KeyServiceUnreachableError  no answer
    ├── PluginError                       a plugin cannot be loaded
    ├── AuthenticationError               wrong key, or data that was altered, moved or swapped
    └── StoreError
        ├── StoreLockedError              another process holds the write lock; try again
        ├── StoreReadOnlyError            opened for reading only, or in a folder that cannot be written
        ├── ReplicaLagError               a replica lags behind what this process has seen
        ├── StaleConfigError              another process changed the collection's settings meanwhile
        ├── StoreUnreachableError         the store could not be opened, read or written
        │   ├── PoolerError               a pooler in transaction mode stands before the server: say pooler=1
        │   ├── StandbyConflictError      a standby cancelled a read, each time it was asked
        │   ├── StoreTimeoutError         the server cancelled a statement that took too long
        │   └── OutcomeUnknownError       the connection was lost at the commit: perhaps written, perhaps not
        └── StoreClosedError              used after close()

A failed authentication never says why: only a forger could use the difference between a wrong key
and a forged byte. "Could not check" (`StoreUnreachableError`) is never reported as "forged".
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
    "KeyContextError",
    "KeyDeletedError",
    "KeyDeniedError",
    "KeyDisabledError",
    "KeyExhaustedError",
    "KeyServiceError",
    "KeyServiceUnreachableError",
    "KeyThrottledError",
    "KeyUnavailableError",
    "KeysetError",
    "MetadataError",
    "MetricError",
    "NonFiniteError",
    "NormError",
    "OutcomeUnknownError",
    "PluginError",
    "PoolerError",
    "ProfileError",
    "ReplicaLagError",
    "SchemeError",
    "ShapeError",
    "StaleConfigError",
    "StandbyConflictError",
    "StoreClosedError",
    "StoreError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreTimeoutError",
    "StoreUnreachableError",
    "TenantErasedError",
    "UnknownFieldError",
    "UriError",
    "ZeroVectorError",
]


class EncvecError(Exception):
    """Base of every error raised by this package."""


class InputError(EncvecError, ValueError):
    """The caller's data or arguments are wrong; nothing was written."""


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
    """A record id is empty, too long or of a wrong type."""


class DuplicateIdError(IdError):
    """A batch has the same id twice."""


class MetadataError(InputError):
    """A metadata value or a document has a type that cannot be stored."""


class FilterError(InputError):
    """A `where` filter is malformed."""


class UnknownFieldError(FilterError):
    """A filter names a field that the collection does not declare."""


class UriError(InputError):
    """A store or key URI is malformed: unknown kind, unknown option, or a part is missing."""


class CalibrationError(InputError):
    """No setting within the given limits meets the recall target."""


class ProfileError(InputError):
    """No profile can be fitted: there are too few vectors or they are too much alike. Or a profile is damaged."""


class ConfigMismatchError(InputError):
    """The collection exists with other settings than those given."""


class DataLossError(InputError):
    """A downgrade would delete data that older tables cannot hold; nothing was changed."""


class CollectionNotFoundError(EncvecError, LookupError):
    """There is no such collection, and no dim was given to create it."""


class KeysetError(EncvecError):
    """A keyset is missing or malformed, or the passphrase is wrong."""


class KeyUnavailableError(KeysetError):
    """A key version is disabled, destroyed, or not in this keyset."""


class TenantErasedError(KeysetError):
    """The tenant was erased: its key is destroyed, and what was stored of it can never be read again."""


class KeyExhaustedError(KeysetError):
    """A key version has encrypted as many records as it may; nothing was written. Rotate the keyset."""


class KeyServiceError(KeysetError):
    """The service that wraps a keyset did not wrap or unwrap it."""


class KeyDeniedError(KeyServiceError):
    """The key service refuses: no valid credentials, or no right to use the key."""


class KeyDisabledError(KeyServiceError):
    """The key in the key service is disabled."""


class KeyDeletedError(KeyServiceError):
    """The key in the key service is deleted, about to be deleted, or never existed."""


class KeyContextError(KeyServiceError):
    """The keyset was wrapped by another key or in another context, or it was altered."""


class KeyThrottledError(KeyServiceError):
    """The key service has too many requests, each time it was asked."""


class KeyServiceUnreachableError(KeyServiceError):
    """The key service does not answer."""


class PluginError(EncvecError):
    """An installed package offers a store, keyset storage, key wrapper or command that cannot be loaded."""


class AuthenticationError(EncvecError):
    """Wrong key, or data that was altered, moved or swapped. Never says which."""


class StoreError(EncvecError):
    """The store failed."""


class StoreLockedError(StoreError):
    """Another process holds the write lock; nothing was written and a retry may succeed."""


class StoreReadOnlyError(StoreError):
    """The store is open for reading only; nothing was written."""


class StaleConfigError(StoreError):
    """Another process changed the collection's settings meanwhile; nothing was written."""


class ReplicaLagError(StoreError):
    """A store opened as a replica lags behind what this process has seen."""


class StoreUnreachableError(StoreError):
    """The store could not be opened, read or written."""


class PoolerError(StoreUnreachableError):
    """A connection pooler in transaction mode stands before the server, and the store was not told (`pooler=1`)."""


class StandbyConflictError(StoreUnreachableError):
    """A standby cancelled a read each time it was asked, because of what it replays from its primary."""


class StoreTimeoutError(StoreUnreachableError):
    """The server cancelled a statement that took longer than its `statement_timeout`."""


class OutcomeUnknownError(StoreUnreachableError):
    """The connection was lost during a commit. The write is stored whole or not at all; writing it again is safe."""


class StoreClosedError(StoreError):
    """The store or collection was used after `close()`."""
