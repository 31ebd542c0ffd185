"""The queries of what requests were billed: refunds, and the list of postings."""

from collections.abc import Sequence
from typing import LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from services.storage.postings import Entry, post

_COLUMNS: LiteralString = (
    "transaction_id, line, organization_id, project_id, key_id, model, debit, credit, nanodollars, quantity, "
    "occurred_at_ms"
)
_BEFORE: LiteralString = "(occurred_at_ms, transaction_id, line) < (%(at_ms)s, %(transaction)s, %(line)s)"
_LATEST: LiteralString = "ORDER BY occurred_at_ms DESC, transaction_id DESC, line DESC LIMIT %(limit)s"
# Refunds of usage are found by their credits. What was booked for a record has the time of its end; the first record
# may be the one whose postings the page before ended with.
_BOOKED: LiteralString = f"""
(
    SELECT {_COLUMNS} FROM postings
    WHERE organization_id = %(organization)s AND model = '' AND {_BEFORE} {_LATEST}
) UNION ALL (
    SELECT {_COLUMNS} FROM (
        SELECT postings.* FROM credits
        JOIN postings ON transaction_id = substr(id, 8) AND line = 'refund'
        WHERE credits.organization_id = %(organization)s AND starts_with(id, 'refund_')
    ) AS refunds
    WHERE {_BEFORE} {_LATEST}
)
"""  # noqa: S608
_USED: LiteralString = f"""
UNION ALL (
    SELECT {_COLUMNS} FROM (
        SELECT postings.* FROM (
            SELECT request_id FROM usage_records
            WHERE organization_id = %(organization)s
                AND (finished_at_ms, request_id) <= (%(at_ms)s, %(transaction)s)
                AND EXISTS (SELECT FROM postings WHERE transaction_id = request_id)
            ORDER BY finished_at_ms DESC, request_id DESC LIMIT %(limit)s + 1
        ) AS records
        JOIN postings ON transaction_id = request_id AND line <> 'refund'
    ) AS used
    WHERE {_BEFORE} {_LATEST}
)
"""  # noqa: S608
_OF_ONE: LiteralString = f"""
SELECT {_COLUMNS} FROM postings
WHERE organization_id = %(organization)s AND transaction_id = ANY(%(transactions)s) AND {_BEFORE}
"""  # noqa: S608
_HOUR: LiteralString = "date_trunc('hour', to_timestamp(%(at_ms)s / 1000.0), 'UTC')"
_COST: LiteralString = f"""
INSERT INTO cost_hours AS kept (hour, organization_id, project_id, key_id, model, line, quantity, nanodollars)
VALUES ({_HOUR}, %(organization)s, %(project)s, %(key)s, %(model)s, 'refund', 0, -%(amount)s::bigint)
ON CONFLICT (organization_id, hour, project_id, key_id, model, line)
DO UPDATE SET nanodollars = kept.nanodollars + excluded.nanodollars
"""  # noqa: S608
_SPEND: LiteralString = f"""
INSERT INTO spend AS kept (organization_id, project_id, month, nanodollars)
SELECT %(organization)s, project, date_trunc('month', {_HOUR} AT TIME ZONE 'UTC')::date, -%(amount)s::bigint
FROM unnest(%(owners)s::text[]) AS project
ON CONFLICT (organization_id, project_id, month)
DO UPDATE SET nanodollars = kept.nanodollars + excluded.nanodollars
"""  # noqa: S608


class Billed(NamedTuple):
    """A usage record, as far as its refund is concerned."""

    project_id: str
    key_id: str
    model: str
    nanodollars: int


class Cursor(NamedTuple):
    """A posting's place in a list, the newest first."""

    occurred_at_ms: int
    transaction_id: str
    line: str


class UsageRecords:
    """Postings as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def billed(self, organization_id: str, request_id: str) -> Billed | None:
        found = await self._connection.execute(
            "SELECT project_id, key_id, model, nanodollars FROM usage_records "
            "WHERE organization_id = %s AND request_id = %s",
            (organization_id, request_id),
        )
        row = await found.fetchone()
        return Billed(*row) if row else None

    async def refunded(self, request_id: str) -> int:
        """What was given back for a request."""
        found = await self._connection.execute(
            "SELECT nanodollars FROM postings WHERE transaction_id = %s AND line = 'refund'", (request_id,)
        )
        row = await found.fetchone()
        return int(row[0]) if row else 0

    async def refund(self, organization_id: str, request_id: str, billed: Billed, now_ms: int) -> None:
        """Books the refund of a request that has none, under the lock; it lowers what is spent now."""
        project_id, key_id, model, amount = billed
        accounts = ("refunds", "credits")
        entry = Entry(request_id, "refund", organization_id, project_id, key_id, model, *accounts, amount, 0, now_ms)
        await post(self._connection, [entry])
        values = {
            "at_ms": now_ms,
            "organization": organization_id,
            "project": project_id,
            "key": key_id,
            "model": model,
            "amount": amount,
            "owners": ["", project_id] if project_id else [""],
        }
        await self._connection.execute(_COST, values)
        await self._connection.execute(_SPEND, values)

    async def postings(
        self, organization_id: str, transaction_ids: Sequence[str], before: Cursor, limit: int, *, usage: bool
    ) -> Sequence[Entry]:
        """The newest ones before a place; those of some transactions only when any are named."""
        query = (_OF_ONE if transaction_ids else _BOOKED + _USED if usage else _BOOKED) + _LATEST
        values = {
            "organization": organization_id,
            "transactions": list(transaction_ids),
            "at_ms": before.occurred_at_ms,
            "transaction": before.transaction_id,
            "line": before.line,
            "limit": limit,
        }
        return [Entry(*row) for row in await (await self._connection.execute(query, values)).fetchall()]
