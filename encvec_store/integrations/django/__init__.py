"""Django: a model field that keeps one sealed vector, and exact searches over what a queryset selects.

    from encvec_store.integrations.django import EncryptedVectorField, nearest

    class Item(models.Model):
        id = models.UUIDField(primary_key=True, default=uuid.uuid4)
        embedding = EncryptedVectorField(384, keyset=keyset)

    hits = nearest(Item.objects.filter(draft=False), "embedding", query, k=10)  # hit.item, hit.score

Needs the extra `django`, and PostgreSQL (psycopg) or SQLite.
"""

try:
    import django  # noqa: F401
except ImportError as error:
    raise ImportError(f"this needs Django ({error}): pip install 'encvec-store[django]'") from None

from .field import EncryptedVectorField, VectorCiphertext, ciphertext, seal
from .searching import Near, anearest, nearest, reencrypt

__all__ = [
    "EncryptedVectorField",
    "Near",
    "VectorCiphertext",
    "anearest",
    "ciphertext",
    "nearest",
    "reencrypt",
    "seal",
]
