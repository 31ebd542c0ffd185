"""The queries of credits, and of what an organisation has, owes and may still spend."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.ledger.v1.ledger_pb2 import Credit
from services.storage.postings import CREDITS, RECEIVABLE, Entry, draw_credits, post

_COLUMNS: LiteralString = "organization_id, id, kind, nanodollars, remaining, created_at, expires_at, description"
_UNEXPIRED: LiteralString = "remaining > 0 AND (expires_at IS NULL OR expires_at > now())"
_MONTH: LiteralString = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
_BALANCE: LiteralString = f"""
SELECT
    coalesce((SELECT sum(remaining) FROM credits WHERE organization_id = %(id)s AND {_UNEXPIRED}), 0)::bigint,
    coalesce((
        SELECT nanodollars FROM balances WHERE organization_id = %(id)s AND account = '{RECEIVABLE}'
    ), 0),
    coalesce((
        SELECT sum(nanodollars) FROM spend_leases
        WHERE organization_id = %(id)s AND project_id = '' AND expires_at > now()
    ), 0)::bigint,
    coalesce((
        SELECT nanodollars FROM spend WHERE organization_id = %(id)s AND project_id = '' AND month = {_MONTH}
    ), 0),
    (SELECT threshold_cents FROM spend_limits WHERE organization_id = %(id)s AND project_id = '')
"""  # noqa: S608


class Balance(NamedTuple):
    """Nano-dollars, but for the spend limit."""

    credits: int
    owed: int
    reserved: int
    month: int
    limit_cents: int | None


class CreditRecords:
    """Credits as one transaction sees them. Whoever changes them holds the lock of the organisation's funds."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def balance(self, organization_id: str) -> Balance:
        row = await (await self._connection.execute(_BALANCE, {"id": organization_id})).fetchone()
        assert row is not None
        return Balance(*row)

    async def left(self, organization_id: str) -> Sequence[Credit]:
        """Those that can still be used, in the order in which they will be."""
        found = await self._connection.execute(
            f"SELECT {_COLUMNS} FROM credits WHERE organization_id = %s AND {_UNEXPIRED} "  # noqa: S608
            "ORDER BY expires_at NULLS LAST, created_at, id",
            (organization_id,),
        )
        return [_credit(row) for row in await found.fetchall()]

    async def get(self, organization_id: str, credit_id: str) -> Credit | None:
        """By the id that it is kept under."""
        found = await self._connection.execute(
            f"SELECT {_COLUMNS} FROM credits WHERE organization_id = %s AND id = %s",  # noqa: S608
            (organization_id, credit_id),
        )
        row = await found.fetchone()
        return _credit(row) if row else None

    async def add(
        self,
        organization_id: str,
        credit_id: str,
        kind: str,
        nanodollars: int,
        *,
        expires_at: int = 0,
        description: str = "",
    ) -> Credit:
        """Of an id that there is not yet, nothing of it used. The caller books it."""
        added = await self._connection.execute(
            "INSERT INTO credits (organization_id, id, kind, nanodollars, remaining, expires_at, description) "  # noqa: S608
            f"VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
            (
                organization_id,
                credit_id,
                kind,
                nanodollars,
                nanodollars,
                datetime.fromtimestamp(expires_at, UTC) if expires_at else None,
                description,
            ),
        )
        row = await added.fetchone()
        assert row is not None
        return _credit(row)

    async def draw(self, organization_id: str, reference: str, now_ms: int) -> None:
        """Covers what is owed by the credits that there are. A reference is used once."""
        await draw_credits(self._connection, organization_id, reference, now_ms)

    async def post(self, *entries: Entry) -> None:
        await post(self._connection, entries)

    async def owners_of_expired(self) -> Sequence[str]:
        """The organisations that have credits which expired with something left."""
        found = await self._connection.execute(
            "SELECT DISTINCT organization_id FROM credits WHERE remaining > 0 AND expires_at <= now() ORDER BY 1"
        )
        return [row[0] for row in await found.fetchall()]

    async def expire(self, organization_id: str, now_ms: int) -> Sequence[Entry]:
        """Takes away what is left of expired credits, and books it."""
        found = await self._connection.execute(
            "SELECT id, remaining FROM credits WHERE organization_id = %s AND remaining > 0 AND expires_at <= now() "
            "ORDER BY id",
            (organization_id,),
        )
        rows = await found.fetchall()
        for credit_id, remaining in rows:
            await self._use(organization_id, credit_id, remaining)
        entries = [
            Entry(f"expiry_{row[0]}", "expiry", organization_id, "", "", "", CREDITS, "expired", row[1], 0, now_ms)
            for row in rows
        ]
        await self.post(*entries)
        return entries

    async def refunded(self, organization_id: str, refund_id: str) -> int:
        """What was paid back of payments under this id."""
        found = await self._connection.execute(
            "SELECT coalesce(sum(postings.nanodollars), 0)::bigint FROM credits JOIN postings "
            "ON transaction_id = 'refund_' || id || '_' || %s::text AND line = 'refund' "
            "WHERE credits.organization_id = %s AND kind = 'payment'",
            (refund_id, organization_id),
        )
        row = await found.fetchone()
        assert row is not None
        return int(row[0])

    async def pay_back(self, organization_id: str, refund_id: str, nanodollars: int, now_ms: int) -> int:
        """Takes an amount out of what is left of payments, the latest first, and books it; returns how much of it
        there was not."""
        found = await self._connection.execute(
            f"SELECT id, remaining FROM credits WHERE organization_id = %s AND kind = 'payment' AND {_UNEXPIRED} "  # noqa: S608
            "ORDER BY created_at DESC, id",
            (organization_id,),
        )
        missing = nanodollars
        for credit_id, remaining in await found.fetchall():
            if amount := min(missing, remaining):
                missing -= amount
                await self._use(organization_id, credit_id, amount)
                name = f"refund_{credit_id}_{refund_id}"
                await self.post(Entry(name, "refund", organization_id, "", "", "", CREDITS, "cash", amount, 0, now_ms))
        return missing

    async def paid(self, organization_id: str, payment_id: str) -> int | None:
        """The amount of a payment that counts for the usage tier; None when there is none of this id."""
        found = await self._connection.execute(
            "SELECT amount_nanodollars FROM payments WHERE organization_id = %s AND id = %s",
            (organization_id, payment_id),
        )
        row = await found.fetchone()
        return int(row[0]) if row else None

    async def _use(self, organization_id: str, credit_id: str, nanodollars: int) -> None:
        await self._connection.execute(
            "UPDATE credits SET remaining = remaining - %s WHERE organization_id = %s AND id = %s",
            (nanodollars, organization_id, credit_id),
        )


def kept_id(organization_id: str, given_id: str) -> str:
    """Ids are their organisation's own, but postings are named by them, and are everybody's."""
    return f"{given_id}@{organization_id}"


def _credit(row: TupleRow) -> Credit:
    organization_id, credit_id, kind, nanodollars, remaining, created_at, expires_at, description = row
    return Credit(
        id=credit_id.removesuffix(f"@{organization_id}"),
        kind=kind,
        nanodollars=nanodollars,
        remaining_nanodollars=remaining,
        created_at=int(created_at.timestamp()),
        expires_at=int(expires_at.timestamp()) if expires_at else 0,
        description=description,
    )
