"""The price book, as it lies in the database."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from services.pricing.book import Book, Version
from services.pricing.rates import decode
from services.storage import Database

Connection: TypeAlias = AsyncConnection[TupleRow]
"""A transaction."""

CHANNEL = "prices"

# Both, because a version may be committed after one of a higher id.
_STAMP = "SELECT count(*), coalesce(max(id), 0) FROM prices"
_SELECT = "SELECT id, model, effective_at_ms, source, rates FROM prices"

Stamp: TypeAlias = tuple[int, int]
"""Number of versions and the highest id: another stamp, another book."""


class PricesStore:
    """Faults of its methods: database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._database.connection() as connection:
            yield connection

    async def changes(self) -> AsyncGenerator[None, None]:
        """Whenever prices may have changed, the first time at once."""
        async with aclosing(self._database.listen(CHANNEL)) as payloads:
            async for _ in payloads:
                yield


async def stamp(connection: Connection) -> Stamp:
    cursor = await connection.execute(_STAMP)
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def book(connection: Connection) -> Book:
    """All versions."""
    cursor = await connection.execute(_SELECT)
    return Book(
        Version(number, model, effective_at_ms, source, decode(msgspec.json.encode(rates)))
        for number, model, effective_at_ms, source, rates in await cursor.fetchall()
    )
