"""Roll-ups made anew: the same as those that the drain kept, also while the drain goes on."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from psycopg import sql

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.usage.v1.usage_pb2 import ToolUsage, Usage
from services.reports.store import rollups
from tests.services.ledger import written
from tests.services.reports.conftest import Desk
from tests.services.reports.records import HOUR_S, NOVEMBER_S

TABLES = ("usage_hours", "tool_hours", "cost_hours")


def usage(number: int) -> Usage:
    """A record of the first hours of the month; every third one has called a tool."""
    found = written.usage(number)
    found.started_at_ms = (NOVEMBER_S + number % 7 * HOUR_S) * 1000
    found.finished_at_ms = found.started_at_ms + number
    del found.tools[:]
    if number % 3 == 0:
        found.tools.append(ToolUsage(tool="web_search", calls=1 + number % 2))
    return found


async def kept(desk: Desk) -> dict[str, Sequence[Any]]:
    rows: dict[str, Sequence[Any]] = {}
    async with desk.database.connection() as connection:
        for table in TABLES:
            query = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))
            rows[table] = await (await connection.execute(query)).fetchall()
    return rows


async def damage(desk: Desk) -> None:
    """A row too few, one too many, one of somebody who has no records, and figures that are wrong."""
    async with desk.database.connection() as connection:
        await connection.execute("DELETE FROM usage_hours WHERE ctid IN (SELECT ctid FROM usage_hours LIMIT 1)")
        await connection.execute("UPDATE usage_hours SET input_tokens = input_tokens + 1")
        await connection.execute("UPDATE cost_hours SET quantity = 0")
        await connection.execute("UPDATE tool_hours SET organization_id = 'nobody'")


async def rebuilt(desk: Desk, since_s: int = 0, until_s: int = 0) -> list[int]:
    request = pb.RebuildRequest(start_time=since_s, end_time=until_s)
    return [answer.records async for answer in desk.reports.rebuild(request)]


@pytest.mark.parametrize("step", [5, 1000])
async def test_they_are_what_the_drain_kept(desk: Desk, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "STEP_RECORDS", step)
    await written.add_organizations(desk.database, "org-0", "org-1")
    usages = [usage(number) for number in range(60)]
    await written.add_usage(desk.database, usages)
    await written.add_refund(desk.database, usages[7])
    before = await kept(desk)
    assert all(before.values())
    assert (await rebuilt(desk))[-1] == 60
    assert await kept(desk) == before
    await damage(desk)
    assert await kept(desk) != before
    told = await rebuilt(desk)
    assert told == sorted(told) and told[-1] == 60 and (step == 1000 or len(told) > 10)
    assert await kept(desk) == before


async def test_of_a_period_in_whole_hours(desk: Desk) -> None:
    await written.add_usage(desk.database, [usage(number) for number in range(14)])
    before = await kept(desk)
    async with desk.database.connection() as connection:
        await connection.execute("DELETE FROM usage_hours")
    # Of the second hour and the third.
    assert (await rebuilt(desk, NOVEMBER_S + HOUR_S + 10, NOVEMBER_S + 2 * HOUR_S + 10))[-1] == 4
    after = await kept(desk)
    assert 0 < len(after["usage_hours"]) < len(before["usage_hours"])
    assert set(after["usage_hours"]) < set(before["usage_hours"])
    assert after["cost_hours"] == before["cost_hours"]


async def test_while_records_come_in(desk: Desk) -> None:
    async def drain() -> None:
        for number in range(0, 200, 10):
            await written.add_usage(desk.database, [usage(number + one) for one in range(10)])

    draining = asyncio.create_task(drain())
    while not draining.done():
        await rebuilt(desk)
    await draining
    beside = await kept(desk)
    await rebuilt(desk)
    assert await kept(desk) == beside
    async with desk.database.connection() as connection:
        cursor = await connection.execute("SELECT sum(requests) FROM usage_hours")
        assert await cursor.fetchone() == (200,)
