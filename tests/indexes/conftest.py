"""A PostgreSQL store of 6,000 records, what FAISS parses of its saved files, and GPU calls kept to the CPU."""

from tests.kits.faiss_cache import parsed  # noqa: F401
from tests.kits.gpu import cagra, fresh, gpu  # noqa: F401
from tests.kits.pgvector import big, filled  # noqa: F401
