"""What the audit reads: one unchanging view of the whole ledger, row by row or by differences that the database finds.

Kept true: everything that one audit reads is of the same moment, so that a drain beside it looks like no difference;
memory is bounded however much there is to read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, LiteralString, NamedTuple
from uuid import uuid4

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from modelplane.usage.v1.usage_pb2 import Attribution, ToolUsage, Usage
from services.ledger.store.checks import USAGE, Check
from services.pricing.book import Book, Version
from services.pricing.rates import parse
from services.storage import Database

BATCH: Final = 1000
# Between the columns of a posting, and between postings: no name has these.
UNIT: Final = "\x1f"
RECORD: Final = "\x1e"

_BEGIN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# A cursor is planned for its first rows, but all of them are read.
_PLAN = "SELECT set_config('cursor_tuple_fraction', '1', true), set_config('work_mem', '64MB', true)"
_PRICES = "SELECT id, model, effective_at_ms, source, rates FROM prices"
_ENTRY: LiteralString = """
concat_ws(
    E'\\x1f', line, debit, credit, nanodollars, quantity, organization_id, project_id, key_id, model, occurred_at_ms
)
"""
# Each record with what was booked for it. They are looked up one by one: to sort all postings would take longer.
_RECORDS: LiteralString = f"""
SELECT
    request_id, organization_id, model, project_id, key_id, service_tier, batch, input_tokens, cached_input_tokens,
    cache_write_tokens, input_image_tokens, input_audio_tokens, output_tokens, output_audio_tokens,
    output_image_tokens, images, image_size, image_quality, audio_ms, characters, tools, stored_byte_seconds,
    started_at_ms, finished_at_ms, price_id, nanodollars, (
        SELECT string_agg(entry, E'\\x1e' ORDER BY entry COLLATE "C")
        FROM (
            SELECT {_ENTRY} AS entry FROM postings WHERE transaction_id = request_id AND {USAGE}
        ) AS entries
    )
FROM usage_records WHERE finished_at_ms >= %(from_ms)s AND finished_at_ms < %(until_ms)s
"""  # noqa: S608
_ORPHANS: LiteralString = f"""
SELECT transaction_id, string_agg({_ENTRY}, E'\\x1e')
FROM postings
WHERE {USAGE} AND occurred_at_ms >= %(from_ms)s AND occurred_at_ms < %(until_ms)s
    AND NOT EXISTS (SELECT FROM usage_records WHERE request_id = transaction_id)
GROUP BY transaction_id
"""  # noqa: S608


class Row(NamedTuple):
    """A usage record and what was booked for it; one of the two may be missing."""

    usage: Usage | None
    price_id: int | None
    nanodollars: int
    transaction_id: str
    postings: str
    """Sorted, where there is a record; joined by RECORD, their columns by UNIT. Empty for none."""


class Difference(NamedTuple):
    """What a check found."""

    organization_id: str
    subject: str
    detail: str


class Reading:
    """The ledger as it was at one moment."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def book(self) -> Book:
        """Every price there is."""
        cursor = await self._connection.execute(_PRICES)
        rows = await cursor.fetchall()
        return Book(Version(row[0], row[1], row[2], row[3], parse(row[4])) for row in rows)

    def records(self, from_ms: int, until_ms: int) -> AsyncGenerator[Sequence[Row], None]:
        """Every record that ended in the period, in batches, in no order. Close it when done."""
        return self._batches(_RECORDS, from_ms, until_ms, _recorded)

    def orphans(self, from_ms: int, until_ms: int) -> AsyncGenerator[Sequence[Row], None]:
        """What was booked in the period for requests without a record, likewise."""
        return self._batches(_ORPHANS, from_ms, until_ms, _orphan)

    async def _batches(
        self, query: LiteralString, from_ms: int, until_ms: int, read: Callable[[TupleRow], Row]
    ) -> AsyncGenerator[Sequence[Row], None]:
        async with self._connection.cursor(name=f"audit_{uuid4().hex}", binary=True) as cursor:
            await cursor.execute(query, {"from_ms": from_ms, "until_ms": until_ms})
            fetched = await cursor.fetchmany(BATCH)
            while fetched:
                # The database looks for the next ones while these are worked on.
                ahead = asyncio.create_task(cursor.fetchmany(BATCH))
                try:
                    await asyncio.sleep(0)
                    yield [read(row) for row in fetched]
                finally:
                    fetched = await ahead

    async def differences(self, check: Check, most: int) -> tuple[int, list[Difference]]:
        """How many there are, and the first of them."""
        # Without parameters, so that the percent signs of the query are its own.
        query = sql.SQL("{} LIMIT {}").format(sql.SQL(check.query), sql.Literal(most))
        cursor = await self._connection.execute(query)
        rows = await cursor.fetchall()
        return rows[0][3] if rows else 0, [Difference(*row[:3]) for row in rows]


class AuditStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        async with self._database.connection() as connection:
            await connection.execute(_BEGIN)
            await connection.execute(_PLAN)
            yield Reading(connection)


def _orphan(row: TupleRow) -> Row:
    return Row(None, None, 0, row[0], row[1])


def _recorded(row: TupleRow) -> Row:
    tools = row[20]
    usage = Usage(
        request_id=row[0],
        attribution=Attribution(organization_id=row[1], project_id=row[3], key_id=row[4]),
        model=row[2],
        service_tier=row[5],
        batch=row[6],
        input_tokens=row[7],
        cached_input_tokens=row[8],
        cache_write_tokens=row[9],
        input_image_tokens=row[10],
        input_audio_tokens=row[11],
        output_tokens=row[12],
        output_audio_tokens=row[13],
        output_image_tokens=row[14],
        images=row[15],
        image_size=row[16],
        image_quality=row[17],
        audio_ms=row[18],
        characters=row[19],
        tools=[ToolUsage(tool=tool, calls=calls) for tool, calls in tools.items()] if tools else None,
        stored_byte_seconds=row[21],
        started_at_ms=row[22],
        finished_at_ms=row[23],
    )
    return Row(usage, row[24], row[25], row[0], row[26] or "")
