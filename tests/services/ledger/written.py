"""Writes a ledger in the ways in which it is written: an audit has something to say only after it was damaged."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from modelplane.usage.v1.usage_pb2 import Attribution, ToolUsage, Usage
from services.billing.store.prices import book
from services.billing.store.usage import UsageStore
from services.ledger.store.records import Records
from services.storage import Database
from services.storage.postings import Entry, draw_credits, post

HOUR_MS = 3_600_000
# 2026-11-01 00:00 UTC.
NOVEMBER_MS = 1_793_491_200_000
PRICES: Mapping[str, Mapping[str, Any]] = {
    "chat": {"input": "2.50", "cached_input": "1.25", "output": "10", "tools": {"web_search": "0.01"}},
    "free": {"free": True},
}


def usage(number: int, **changes: Any) -> Usage:
    """A record of its own: of two organisations, two projects each, an hour later for each ten."""
    started_at_ms = NOVEMBER_MS + number * HOUR_MS // 10
    values: dict[str, Any] = {
        "request_id": f"req_{number:04}",
        "attribution": Attribution(
            organization_id=f"org-{number % 2}", project_id=f"proj_{number % 4}", key_id="key_1", user_id="user-1"
        ),
        "model": "chat",
        "service_tier": ("default", "flex", "priority")[number % 3],
        "operation": "chat.completions",
        "outcome": 1,
        "input_tokens": 1000 + number,
        "cached_input_tokens": 512 * (number % 2),
        "output_tokens": 7 * number,
        "batch": number % 5 == 0,
        "started_at_ms": started_at_ms,
        "finished_at_ms": started_at_ms + 1500,
    }
    if number % 7 == 0:
        values["tools"] = [ToolUsage(tool="web_search", calls=2)]
    return Usage(**{**values, **changes})


async def add_prices(database: Database, at_ms: int = 0, prices: Mapping[str, Mapping[str, Any]] = PRICES) -> None:
    async with database.connection() as connection:
        for model, rates in prices.items():
            await connection.execute(
                "INSERT INTO prices (model, effective_at_ms, source, rates) VALUES (%s, %s, 'default', %s)",
                (model, at_ms, Jsonb(dict(rates))),
            )


async def add_organizations(database: Database, *ids: str) -> None:
    async with database.connection() as connection:
        for organization_id in ids:
            await connection.execute(
                "INSERT INTO organizations (id, name) VALUES (%s, 'An organization')", (organization_id,)
            )


async def add_payment(database: Database, organization_id: str, payment_id: str, nanodollars: int) -> None:
    async with database.connection() as connection:
        await add_credit(connection, organization_id, payment_id, "payment", nanodollars)
        paid = Entry(payment_id, "payment", organization_id, "", "", "", "cash", "credits", nanodollars, 0, NOVEMBER_MS)
        await post(connection, [paid])
        await draw_credits(connection, organization_id, payment_id, NOVEMBER_MS)


async def add_credit(
    connection: AsyncConnection, organization_id: str, credit_id: str, kind: str, nanodollars: int
) -> None:
    await connection.execute(
        "INSERT INTO credits (organization_id, id, kind, nanodollars, remaining) VALUES (%s, %s, %s, %s, %s)",
        (organization_id, credit_id, kind, nanodollars, nanodollars),
    )


async def add_refund(database: Database, found: Usage) -> None:
    """Gives back what a record cost, as credits."""
    organization_id = found.attribution.organization_id
    async with database.connection() as connection:
        records = Records(connection)
        await records.lock(organization_id)
        billed = await records.usage.billed(organization_id, found.request_id)
        assert billed is not None
        await records.usage.refund(organization_id, found.request_id, billed, NOVEMBER_MS)
        await add_credit(connection, organization_id, f"refund_{found.request_id}", "grant", billed.nanodollars)


async def add_usage(database: Database, usages: Sequence[Usage]) -> None:
    """Books each, and draws the credits that there are."""
    store = UsageStore(database, book)
    await store.add(await store.prepare(usages))
