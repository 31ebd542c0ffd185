"""Organisations with money, holds and costs, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg

from modelplane.billing.v1.billing_pb2 import HoldRequest
from modelplane.usage.v1.usage_pb2 import Attribution, Usage
from services.billing.funds import Funds
from services.billing.prices import Prices
from services.billing.settings import BillingSettings
from services.billing.store import Cost, FundsStore, PricesStore
from services.storage import Database
from services.storage.postings import lock_funds

ORGANIZATION = "org-1"
PROJECT = "proj_1"
MODEL = "priced"
FREE_MODEL = "free"
# Of MODEL, for a token of input or output.
INPUT = 1_000
OUTPUT = 10_000
CENT = 10**7
DOLLAR = 10**9
# 2026-11-23 04:00 UTC.
NOW_MS = 1_795_406_400_000


def furnish(url: str, *, usage_tier: int = 5, limit_cents: int | None = None, project_cents: int | None = None) -> None:
    """An organisation and a project, and the prices of two models."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO organizations (id, name, usage_tier) VALUES (%s, 'one', %s)", (ORGANIZATION, usage_tier)
        )
        for model, rates in ((MODEL, '{"input": "1", "output": "10"}'), (FREE_MODEL, '{"free": true}')):
            price(connection, model, rates)
    if limit_cents is not None:
        limit(url, limit_cents)
    if project_cents is not None:
        limit(url, project_cents, PROJECT)


def price(connection: psycopg.Connection, model: str, rates: str) -> None:
    connection.execute(
        "INSERT INTO prices (model, effective_at_ms, source, rates) VALUES (%s, 0, 'operator', %s)", (model, rates)
    )


def limit(url: str, cents: int, project_id: str = "") -> None:
    """Sets a spend limit."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO spend_limits VALUES (%s, %s, %s) ON CONFLICT (organization_id, project_id) "
            "DO UPDATE SET threshold_cents = excluded.threshold_cents",
            (ORGANIZATION, project_id, cents),
        )


def spent(url: str, nanodollars: int, month: str = "2026-11-01", project_id: str = "") -> None:
    """Says that so much was spent in a month."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO spend VALUES (%s, %s, %s, %s) ON CONFLICT (organization_id, project_id, month) "
            "DO UPDATE SET nanodollars = excluded.nanodollars",
            (ORGANIZATION, project_id, month, nanodollars),
        )


def leased(url: str, project_id: str = "") -> int:
    """By all live leases."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(nanodollars), 0) FROM spend_leases WHERE organization_id = %s AND project_id = %s "
            "AND expires_at > now()",
            (ORGANIZATION, project_id),
        ).fetchone()
    assert row is not None
    return int(row[0])


def asking(
    expected: int = 100, most: int = 100, *, input_tokens: int = 0, model: str = MODEL, project_id: str = PROJECT
) -> HoldRequest:
    return HoldRequest(
        request_id=f"req_{uuid4().hex}",
        attribution=Attribution(organization_id=ORGANIZATION, project_id=project_id, key_id="key_1"),
        model=model,
        service_tier="default",
        input_tokens=input_tokens,
        expected_output_tokens=expected,
        max_output_tokens=most,
    )


def used(request: HoldRequest, output_tokens: int) -> Usage:
    """The record of a request that was held."""
    return Usage(
        request_id=request.request_id,
        attribution=request.attribution,
        model=request.model,
        service_tier="default",
        output_tokens=output_tokens,
        started_at_ms=NOW_MS,
        finished_at_ms=NOW_MS,
    )


class Clock:
    """A date and a time that tests set."""

    def __init__(self) -> None:
        self.ms = NOW_MS
        self.s = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> float:
        return self.s


@asynccontextmanager
async def funds_of(database: Database, clock: Clock | None = None, **settings: float) -> AsyncIterator[Funds]:
    """Funds as a process has them, without their background work."""
    given = BillingSettings(**{"patience_s": 0, **settings})  # type: ignore[arg-type]
    prices = Prices(PricesStore(database))
    await prices.start()
    store = FundsStore(database, uuid4().hex, given.lease_s)
    clocks = {} if clock is None else {"now_ms": clock.now_ms, "now_s": clock.now_s}
    funds = Funds(store, prices, given, **clocks)  # type: ignore[arg-type]
    try:
        yield funds
    finally:
        await funds.close()
        await prices.close()


async def drain(database: Database, funds: Funds, nanodollars: int, project_id: str = PROJECT) -> None:
    """What the drain does about money that was spent."""
    costs = [Cost(ORGANIZATION, project_id, nanodollars)]
    async with database.connection() as connection:
        await lock_funds(connection, (ORGANIZATION,))
        for place in ("", project_id):
            await connection.execute(
                "INSERT INTO spend VALUES (%s, %s, '2026-11-01', %s) ON CONFLICT (organization_id, project_id, month) "
                "DO UPDATE SET nanodollars = spend.nanodollars + excluded.nanodollars",
                (ORGANIZATION, place, nanodollars),
            )
        await funds.drained(connection, costs)
    funds.committed(costs)
