"""The model field: one binary column, the sealed vector.

A cell is the vector envelope of docs/formats.md, without an incarnation. It is sealed in `pre_save`, where the object's
primary key is known, or will be made by the database. To read it, the query selects cell and primary key as one value.
What nobody sealed is refused at the last door, `get_prep_value`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.utils.module_loading import import_string

from ...crypto.envelope import INCARNATION
from ...data.arrays import Matrix
from ...errors import InputError
from ...keys.keyset import Keyset
from ...sealing.config import CollectionConfig
from ..cipher import ColumnCipher, KeysetSource, identity_text, plain_array

__all__ = ["EncryptedVectorField", "VectorCiphertext", "ciphertext", "seal"]

_NO_LIFE = bytes(INCARNATION)
"""In place of an incarnation: Django has no place for one beside the table."""
_CELLS = "_encvec_cells"
_KEYS = (models.IntegerField, models.CharField, models.TextField, models.UUIDField)


class VectorCiphertext:
    """The ciphertext of one vector, for one row. Shows nothing."""

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __repr__(self) -> str:
        return "<sealed vector>"


class _OnlyNone(tuple[()]):
    """Values that count as empty: an array cannot be compared with the usual ones."""

    __slots__ = ()

    def __contains__(self, value: object) -> bool:
        return value is None


class EncryptedVectorField(models.Field):
    """A vector that the database sees encrypted only. Values are (dim,) lists or arrays of numbers; they come back
    exactly, as read-only float32 arrays. Loading raises AuthenticationError, with the row's key, if the keys are wrong
    or the data was altered, swapped or moved. Lookups: `isnull` only; `nearest` searches.

    The primary key must be an integer, text or UUID field of Django's own. A key that the database makes is not known
    when a row is inserted: the vector is bound to it when the object is saved again, or by `reencrypt`.

    Args:
        dim: coordinates of a vector.
        keyset: a `Keyset`, or a function that returns it at first use. Without it, `settings.ENCVEC_KEYSET` is one of
            these, or a dotted path to one. It is no part of a migration.
        metric: cosine, l2 or ip.
        tenant: each tenant has keys of its own.
        collection: each column has keys of its own, under this name. The default is "table.column"; after you rename
            a table or column, give the old name.
        require_identity: refuse to write or read a row that is not bound to its primary key.
        options: of every Django field, such as `null`.
    """

    description = "An encrypted vector"
    empty_values = _OnlyNone()

    def __init__(
        self,
        dim: int = 0,
        keyset: KeysetSource | None = None,
        *,
        metric: str = "cosine",
        tenant: str = "",
        collection: str | None = None,
        require_identity: bool = False,
        **options: Any,
    ) -> None:
        options.setdefault("editable", False)
        super().__init__(**options)
        self.config = CollectionConfig.build(
            dim=dim, metric_name=metric, scheme_spec="sealed", fields=None, max_norm=None, oversample=None
        )
        self.dim, self.metric, self.tenant, self.collection = dim, self.config.metric.name, tenant, collection
        self.require_identity = require_identity
        self._source = keyset
        self._cipher: ColumnCipher | None = None

    # -- what Django asks of a field

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Return what a migration writes: no keys."""
        name, path, args, kwargs = super().deconstruct()
        path = "encvec_store.integrations.django.EncryptedVectorField"
        defaults = {"metric": "cosine", "tenant": "", "collection": None, "require_identity": False}
        given = {key: getattr(self, key) for key, value in defaults.items() if getattr(self, key) != value}
        if kwargs.pop("editable", True):
            given["editable"] = True
        return name, path, [*args, self.dim], {**kwargs, **given}

    def get_internal_type(self) -> str:
        """Name the field whose column this has: `bytea` or `BLOB`."""
        return "BinaryField"

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        """Become the field of a model; each model has keys of its own."""
        super().contribute_to_class(cls, name, private_only)
        self._cipher = None

    def check(self, **options: Any) -> list[Any]:
        """Check the primary key beside what Django checks."""
        found: list[Any] = super().check(**options)
        try:
            self.key_field()
        except InputError as error:
            found = [*found, checks.Error(str(error), obj=self, id="encvec_store.E001")]
        return found

    def get_lookup(self, lookup_name: str) -> Any:
        """Return the lookups `isnull`, and `exact` for `field=None`: ciphertexts cannot be compared."""
        return super().get_lookup(lookup_name) if lookup_name in ("isnull", "exact") else None

    def clean(self, value: Any, model_instance: Any) -> Any:
        """Check a value. Raises ValidationError, which shows no part of it."""
        if value is None or isinstance(value, VectorCiphertext):
            if value is None and not self.null:
                raise ValidationError(self.error_messages["null"], code="null")
            return value
        try:
            self.cipher.checked(plain_array(value, self.name)[None], self.name)
        except InputError as error:
            raise ValidationError(str(error), code="invalid") from None
        return value

    def value_to_string(self, obj: Any) -> NoReturn:
        """Raise InputError: fixtures are plaintext."""
        raise InputError(f"{self}: a fixture would hold the vector in plaintext: leave the model out, or use pg_dump")

    # -- write

    def pre_save(self, model_instance: Any, add: bool) -> VectorCiphertext | None:
        """Seal the vector of an object, bound to its primary key if that is known."""
        value = getattr(model_instance, self.attname)
        if value is None or isinstance(value, VectorCiphertext):
            return value
        identity = self.identity(getattr(model_instance, self.key_field().attname))
        cells = model_instance.__dict__.get(_CELLS, {})
        vector, known, cell = cells.pop(self.attname, (None, None, None))
        if vector is value and known == identity and cell is not None:
            found: VectorCiphertext = cell
            return found
        return self.sealed([value], [identity])[0]

    def get_prep_value(self, value: Any) -> Any:
        """Let ciphertext pass. Raises InputError for everything else."""
        if value is None or isinstance(value, VectorCiphertext) or hasattr(value, "as_sql"):
            return value
        raise InputError(
            f"{self}: a vector cannot be compared, and to write it, its row must be known: save() the object, or"
            " update(...=ciphertext(...)) one row"
        )

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Return ciphertext as the driver takes it. Raises InputError for everything else."""
        passed = self.get_prep_value(value)
        return connection.Database.Binary(passed.content) if isinstance(passed, VectorCiphertext) else passed

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Return ciphertext as the driver takes it. Raises InputError for everything else."""
        return self.get_db_prep_value(value, connection)

    def sealed(self, vectors: Sequence[Any], identities: Sequence[str | None]) -> list[VectorCiphertext]:
        """Seal n vectors for the rows with these identities. Raises InputError."""
        if self.require_identity and None in identities:
            raise InputError(f"{self}: the primary key must be known before the row is written (require_identity)")
        arrays = [plain_array(vector, self.name) for vector in vectors]
        wrong = next((each for each in arrays if each.shape != (self.dim,)), None)
        if wrong is not None:
            raise InputError(f"{self}: a vector must have the shape ({self.dim},), got {wrong.shape}")
        checked = self.cipher.checked(np.array(arrays), self.name)
        _, envelopes = self.cipher.seal(checked, identities, _NO_LIFE)
        return [VectorCiphertext(envelope.tobytes()) for envelope in envelopes]

    # -- read

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """Select the cell with the primary key of its row; other expressions as they are."""
        quote = compiler.connection.ops.quote_name
        table, dot, column = sql.rpartition(".")
        if not dot or column != quote(self.column):
            return sql, params
        key, vendor = f"{table}.{quote(self.key_field().column)}", compiler.connection.vendor
        if vendor == "postgresql":
            return f"(int4send(octet_length({sql})) || {sql} || convert_to({key}::text, 'UTF8'))", params
        if vendor == "sqlite":
            packed = f"hex({sql}) || ':' || CAST({key} AS TEXT)"
            return f"(CASE WHEN {sql} IS NOT NULL THEN {packed} END)", params
        raise InputError(f"{self} needs PostgreSQL or SQLite, got {vendor}")

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Matrix | None:
        """Open what `select_format` selected."""
        if value is None:
            return None
        if isinstance(value, str):
            text, _, key = value.partition(":")
            cell = bytes.fromhex(text)
        else:
            packed = bytes(value)
            end = 4 + int.from_bytes(packed[:4], "big")
            cell, key = packed[4:end], packed[end:].decode()
        vector: Matrix = self.opened([cell], [key])[0]
        vector.setflags(write=False)
        return vector

    def opened(self, cells: Sequence[bytes], keys: Sequence[Any], *, bound: bool | None = None) -> Matrix:
        """Open the cells of n rows with these primary keys: (n, dim). Raises AuthenticationError."""
        names = [(self.identity(key) or "").encode() for key in keys]
        rows = [
            len(name).to_bytes(4, "big") + name + _NO_LIFE + bytes(cell)
            for name, cell in zip(names, cells, strict=True)
        ]
        return self.cipher.open(rows, bound=self.require_identity if bound is None else bound)

    # -- keys

    @property
    def cipher(self) -> ColumnCipher:
        """The cipher of the column."""
        if self._cipher is None:
            place = self.collection or f"{self.model._meta.db_table}.{self.column}"
            self._cipher = ColumnCipher(self._keyset, self.tenant, place, self.config)
        return self._cipher

    def _keyset(self) -> Keyset:
        found: Any = self._source if self._source is not None else getattr(settings, "ENCVEC_KEYSET", None)
        if isinstance(found, str):
            found = import_string(found)
        found = found() if callable(found) else found
        if not isinstance(found, Keyset):
            raise ImproperlyConfigured(
                f"{self}: keyset must be a Keyset or a function that returns one, got {type(found).__name__}; or set"
                " ENCVEC_KEYSET in the settings, which migrations use too"
            )
        return found

    def key_field(self) -> Any:
        """Return the primary key of the table. Raises InputError if its text is not the same in Python and SQL."""
        key = self.model._meta.pk
        kind = key
        while getattr(kind, "remote_field", None) is not None:
            kind = kind.target_field
        if not (isinstance(kind, _KEYS) and type(kind).__module__.startswith("django.db.models")):
            raise InputError(
                f"{self}: the primary key must be an integer, text or UUID field of Django's own, got"
                f" {type(kind).__name__}"
            )
        return key

    def identity(self, value: Any) -> str | None:
        """Return the identity of a row by the value of its primary key; None if it is not known."""
        if value is None or value == "":
            return None
        kind = self.key_field()
        while getattr(kind, "remote_field", None) is not None:
            kind = kind.target_field
        known = kind.to_python(value)
        return identity_text([str(known) if isinstance(known, int | uuid.UUID) else known])


def seal(objects: Iterable[Any]) -> list[Any]:
    """Seal the vectors of objects in one batch, for `bulk_create`: `Item.objects.bulk_create(seal(items))`.

    Returns the objects. A vector or primary key that is set after this is sealed when it is written. Raises InputError.
    """
    given = list(objects)
    fields = {field for each in {type(one) for one in given} for field in each._meta.concrete_fields}
    for field in (each for each in fields if isinstance(each, EncryptedVectorField)):
        mine = [one for one in given if field in type(one)._meta.concrete_fields]
        mine = [one for one in mine if not isinstance(getattr(one, field.attname), VectorCiphertext | None)]
        if not mine:
            continue
        vectors = [getattr(one, field.attname) for one in mine]
        identities = [field.identity(getattr(one, field.key_field().attname)) for one in mine]
        for one, vector, identity, cell in zip(
            mine, vectors, identities, field.sealed(vectors, identities), strict=True
        ):
            one.__dict__.setdefault(_CELLS, {})[field.attname] = (vector, identity, cell)
    return given


def ciphertext(model: Any, name: str, vector: npt.ArrayLike, pk: Any) -> VectorCiphertext:
    """Seal a vector for one row, for statements without an object.

        Item.objects.filter(pk=pk).update(embedding=ciphertext(Item, "embedding", vector, pk))

    Raises InputError.
    """
    field = field_of(model, name)
    identity = field.identity(pk)
    if identity is None:
        raise InputError(f"pk must be the primary key of a row, got {pk!r}")
    return field.sealed([vector], [identity])[0]


def field_of(model: Any, name: str) -> EncryptedVectorField:
    """Return the field of this name. Raises InputError if it is of another kind."""
    field = next((each for each in model._meta.concrete_fields if each.name == name), None)
    if not isinstance(field, EncryptedVectorField):
        raise InputError(f"field must be the name of an EncryptedVectorField of {model.__name__}, got {name!r}")
    return field
