"""The queries of the price book."""

from collections.abc import Sequence
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from services.pricing.book import Version
from services.pricing.rates import Rates, encode, parse

# "pric"; any number that nothing else locks.
_LOCK: Final = 0x70726963


class PriceRecords:
    """The price book as one transaction sees it."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def lock(self) -> None:
        """Nobody else adds versions until the transaction ends."""
        await self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))

    async def versions(self, model: str = "") -> Sequence[Version]:
        """All versions of a model, or of every model, in the order in which they were added."""
        found = await self._connection.execute(
            "SELECT id, model, effective_at_ms, source, rates FROM prices WHERE %(model)s IN ('', model) ORDER BY id",
            {"model": model},
        )
        return [Version(row[0], row[1], row[2], row[3], parse(row[4])) for row in await found.fetchall()]

    async def add(self, model: str, effective_at_ms: int, source: str, rates: Rates) -> Version:
        """Under the lock."""
        added = await self._connection.execute(
            "INSERT INTO prices (model, effective_at_ms, source, rates) VALUES (%s, %s, %s, %s) RETURNING id",
            (model, effective_at_ms, source, Jsonb(rates, dumps=encode)),
        )
        row = await added.fetchone()
        assert row is not None
        return Version(row[0], model, effective_at_ms, source, rates)
