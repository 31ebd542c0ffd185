"""How money moves: the statements that every store uses that books something.

Kept true: whoever changes what organisations have or owe holds their locks first, in the order of their ids, so
that two transactions never wait for each other; a posting changes the balances of its two accounts in the same
transaction; credits that expire first are drawn first.

    what happens           debit          credit
    usage, a line of it    receivable     revenue:<line>
    a discount             discounts      receivable
    credits cover usage    credits        receivable
    a payment              cash           credits
    a refund of one        credits        cash
    a grant                grants         credits
    credits expire         credits        expired
    usage is refunded      refunds        credits
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psycopg import AsyncConnection

RECEIVABLE = "receivable"
CREDITS = "credits"

# Numbers of advisory locks are shared by the whole database: this one is for money.
_LOCK = "SELECT pg_advisory_xact_lock(1835364461, hashtext(id)) FROM unnest(%s::text[]) AS id"
_INSERT = """
INSERT INTO postings (
    transaction_id, line, organization_id, project_id, key_id, model, debit, credit, nanodollars, quantity,
    occurred_at_ms
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_BALANCE = """
INSERT INTO balances (organization_id, account, nanodollars)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[])
ON CONFLICT (organization_id, account) DO UPDATE SET nanodollars = balances.nanodollars + excluded.nanodollars
"""
_OWED = "SELECT nanodollars FROM balances WHERE organization_id = %s AND account = 'receivable'"
_LEFT = """
SELECT id, remaining FROM credits
WHERE organization_id = %s AND remaining > 0 AND (expires_at IS NULL OR expires_at > now())
ORDER BY expires_at NULLS LAST, created_at, id
"""
_DRAW = "UPDATE credits SET remaining = remaining - %s WHERE organization_id = %s AND id = %s"


class Entry(NamedTuple):
    """A row of `postings`."""

    transaction_id: str
    line: str
    organization_id: str
    project_id: str
    key_id: str
    model: str
    debit: str
    credit: str
    nanodollars: int
    quantity: int
    occurred_at_ms: int


async def lock_funds(connection: AsyncConnection, organization_ids: Iterable[str]) -> None:
    """Until the transaction ends nobody else changes what these have, owe or spend. Once in a transaction."""
    # hashtext may give two ids the same lock, so the order is that of the locks.
    ids = sorted(set(organization_ids))
    await connection.execute(f"{_LOCK} ORDER BY hashtext(id)", (ids,))


async def post(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Books entries that are not there yet. The caller holds the locks. Raises psycopg.errors.UniqueViolation."""
    if entries:
        await connection.cursor().executemany(_INSERT, entries)
        await change_balances(connection, entries)


async def change_balances(connection: AsyncConnection, entries: Iterable[Entry]) -> None:
    """Adds entries to their accounts, for who inserts them in another way. The caller holds the locks."""
    changes: defaultdict[tuple[str, str], int] = defaultdict(int)
    for entry in entries:
        changes[entry.organization_id, entry.debit] += entry.nanodollars
        changes[entry.organization_id, entry.credit] -= entry.nanodollars
    if changes:
        organizations, accounts = zip(*changes, strict=True)
        await connection.execute(_BALANCE, (list(organizations), list(accounts), list(changes.values())))


async def draw_credits(connection: AsyncConnection, organization_id: str, reference: str, now_ms: int) -> int:
    """Covers what an organisation owes by the credits that it has; returns how much. The caller holds the lock.

    `reference` names the draw, together with the credit that is drawn, and is used once.
    """
    cursor = await connection.execute(_OWED, (organization_id,))
    row = await cursor.fetchone()
    owed: int = row[0] if row else 0
    if owed <= 0:
        return 0
    drawn: list[Entry] = []
    cursor = await connection.execute(_LEFT, (organization_id,))
    for credit_id, remaining in await cursor.fetchall():
        amount = min(owed, remaining)
        await connection.execute(_DRAW, (amount, organization_id, credit_id))
        name = f"draw_{credit_id}_{reference}"
        drawn.append(Entry(name, "draw", organization_id, "", "", "", CREDITS, RECEIVABLE, amount, 0, now_ms))
        owed -= amount
        if owed == 0:
            break
    await post(connection, drawn)
    return sum(entry.nanodollars for entry in drawn)
