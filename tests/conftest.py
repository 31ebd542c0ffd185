"""What tests share: one PostgreSQL server for the whole run, and a migrated database of its own for each test."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from psycopg.conninfo import make_conninfo

from services.storage import Database
from services.storage.embedded import EmbeddedServer
from services.storage.migrate import upgrade

TEMPLATE = "template_modelplane"

# How long an example takes says more about the machine than about the code.
settings.register_profile("modelplane", deadline=None)
settings.load_profile("modelplane")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The url of an empty server, which this run starts and stops."""
    # Not in pytest's folder, whose long path would not do for a socket.
    with tempfile.TemporaryDirectory(prefix="modelplane-tests-") as home, asyncio.Runner() as runner:
        server = EmbeddedServer(Path(home), durable=False)
        try:
            runner.run(server.start())
            yield server.url
        finally:
            runner.run(server.stop())


@pytest.fixture(scope="session")
def migrated(postgres: str) -> str:
    """The name of a migrated database to copy."""
    execute(postgres, f"CREATE DATABASE {TEMPLATE}")
    upgrade(make_conninfo(postgres, dbname=TEMPLATE))
    return TEMPLATE


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """A database without tables."""
    yield from copy(postgres, "template0")


@pytest.fixture
def database_url(postgres: str, migrated: str) -> Iterator[str]:
    """A migrated database without rows."""
    yield from copy(postgres, migrated)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The same, opened."""
    # A busy machine makes connections slowly.
    database = Database(database_url, wait_s=20)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def copy(postgres: str, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield make_conninfo(postgres, dbname=name)
    finally:
        execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
