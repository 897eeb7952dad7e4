"""A PostgreSQL store of 6,000 records, and what FAISS parses of its saved files."""

from tests.kits.faiss_cache import parsed  # noqa: F401
from tests.kits.pgvector import big, filled  # noqa: F401
