"""A real PostgreSQL for mapped classes."""

import psycopg
import pytest
from psycopg import sql

from tests.kits.orm import KINDS, models, opened


@pytest.fixture
def orm_dsn(pg_place):
    """The DSN of a shared database, where tables without a schema go to a new one: cheaper than a database each."""
    with psycopg.connect(pg_place.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(pg_place.schema)))
    join = "&" if "?" in pg_place.dsn else "?"
    return f"{pg_place.dsn}{join}options=-csearch_path%3D{pg_place.schema},public"


@pytest.fixture(params=["sealed", "sap"])
def made(request):
    """The mapped classes of a test, once for each kind of column. A module whose tests need others has its own."""
    return models(**KINDS[request.param])


@pytest.fixture
def session(orm_dsn, made):
    """A session over a database that has the tables of `made`."""
    with opened(orm_dsn, made) as session:
        yield session
