"""A batch of usage becomes records, postings and sums: together, once, and the same whatever order it comes in."""

import asyncio
import random
from collections.abc import Sequence
from datetime import date
from typing import Any

import psycopg
import pytest

from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Attribution, ToolUsage, Usage
from services.billing.store import RecordRefusedError, UsageStore
from services.billing.store.usage import Drained, Told
from services.pricing.book import Book, Version
from services.pricing.rates import parse
from services.storage import Database
from tests.services.billing.usages import usage

NOVEMBER_MS = 1_795_402_800_000  # 2026-11-23 07:00 UTC
BOOK = Book(
    [
        Version(1, "m", 0, "default", parse({"input": 2, "cached_input": 1, "output": 10, "tools": {"search": 0.01}})),
        Version(2, "m", NOVEMBER_MS, "operator", parse({"input": 4, "output": 20})),
        Version(3, "free", 0, "file", parse({"free": True})),
    ]
)


async def read_book(connection: object) -> Book:
    return BOOK


@pytest.fixture
def store(database: Database) -> UsageStore:
    return UsageStore(database, read_book)


def used(request_id: str, **fields: Any) -> Usage:
    """1,000 prompt tokens, 400 of them cached, and 100 of output: 0.0026 dollars at the first price."""
    given: dict[str, Any] = {
        "model": "m",
        "service_tier": "default",
        "operation": "chat.completions",
        "outcome": OUTCOME_COMPLETED,
        "input_tokens": 1000,
        "cached_input_tokens": 400,
        "output_tokens": 100,
        "started_at_ms": NOVEMBER_MS - 1000,
        "finished_at_ms": NOVEMBER_MS - 500,
        **fields,
    }
    organization_id = given.pop("organization_id", "org-1")
    who = Attribution(organization_id=organization_id, project_id=given.pop("project_id", "proj-1"), key_id="key-1")
    return Usage(request_id=request_id, attribution=who, **given)


async def book(store: UsageStore, usages: Sequence[Usage], told: Told | None = None) -> Drained:
    return await store.add(await store.prepare(usages), told)


async def rows(database: Database, query: str) -> list[Any]:
    async with database.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def totals(database: Database) -> dict[str, int]:
    """The same sum, from everywhere it is kept; and what must be nothing."""
    queries = {
        "records": "SELECT sum(nanodollars) FROM usage_records",
        "postings": "SELECT sum(CASE debit WHEN 'receivable' THEN nanodollars ELSE -nanodollars END) FROM postings "
        "WHERE model <> ''",
        "spend": "SELECT sum(nanodollars) FROM spend WHERE project_id = ''",
        "projects": "SELECT sum(nanodollars) FROM spend WHERE project_id <> ''",
        "hours": "SELECT sum(nanodollars) FROM cost_hours",
        "balances": "SELECT -sum(nanodollars) FROM balances WHERE account LIKE 'revenue:%' OR account = 'discounts'",
    }
    return {name: int((await rows(database, query))[0][0] or 0) for name, query in queries.items()}


async def test_a_record_is_booked_line_by_line(store: UsageStore, database: Database) -> None:
    drained = await book(store, [used("req_1")])
    assert (drained.added, drained.unpriced) == (1, ())
    assert drained.costs == [("org-1", "proj-1", 2_600_000)]
    assert await rows(database, "SELECT line, debit, credit, nanodollars, quantity FROM postings ORDER BY line") == [
        ("cached_input", "receivable", "revenue:cached_input", 400_000, 400),
        ("input", "receivable", "revenue:input", 1_200_000, 600),
        ("output", "receivable", "revenue:output", 1_000_000, 100),
    ]
    assert set((await totals(database)).values()) == {2_600_000}
    assert await rows(database, "SELECT sum(nanodollars)::bigint FROM balances") == [(0,)]
    found = await store.get("org-1", "req_1")
    assert found == (used("req_1"), 2_600_000)
    assert await store.get("org-2", "req_1") is None


@pytest.mark.parametrize(
    ("fields", "line", "amount", "total"),
    [
        ({"batch": True}, "discount", -1_300_000, 1_300_000),
        ({"service_tier": "flex"}, "discount", -1_300_000, 1_300_000),
        ({"service_tier": "priority"}, "premium", 2_600_000, 5_200_000),
        # A batch has one discount, whatever class it asked for.
        ({"batch": True, "service_tier": "priority"}, "discount", -1_300_000, 1_300_000),
        (
            {"tools": [ToolUsage(tool="search", calls=2), ToolUsage(tool="search", calls=1)]},
            "tool:search",
            30_000_000,
            32_600_000,
        ),
    ],
)
async def test_classes_and_tools(
    store: UsageStore, database: Database, fields: dict[str, Any], line: str, amount: int, total: int
) -> None:
    await book(store, [used("req_1", **fields)])
    found = await rows(
        database,
        "SELECT line, CASE debit WHEN 'receivable' THEN nanodollars ELSE -nanodollars END FROM postings "
        "WHERE line NOT IN ('input', 'cached_input', 'output')",
    )
    assert found == [(line, amount)]
    assert set((await totals(database)).values()) == {total}


async def test_the_price_is_the_one_in_force_when_the_request_began(store: UsageStore, database: Database) -> None:
    across = used("req_1", started_at_ms=NOVEMBER_MS - 1, finished_at_ms=NOVEMBER_MS + 60_000)
    await book(store, [across, used("req_2", started_at_ms=NOVEMBER_MS)])
    found = await rows(database, "SELECT request_id, price_id, nanodollars FROM usage_records ORDER BY 1")
    assert found == [("req_1", 1, 2_600_000), ("req_2", 2, 6_000_000)]


async def test_what_has_no_price_is_kept_and_told(store: UsageStore, database: Database) -> None:
    drained = await book(store, [used("req_1", model="new"), used("req_2", model="free"), used("req_3", images=1)])
    assert set(drained.unpriced) == {"m", "new"}
    assert await rows(database, "SELECT request_id, price_id FROM usage_records ORDER BY 1") == [
        ("req_1", None),
        ("req_2", 3),
        ("req_3", None),
    ]
    assert await rows(database, "SELECT * FROM postings") == []


async def test_a_record_that_comes_again_changes_nothing(store: UsageStore, database: Database) -> None:
    first = [used(f"req_{number}") for number in range(3)]
    await book(store, first)
    before = await totals(database)
    # The first account of a request counts, and so does the first in a batch.
    other = used("req_1", output_tokens=999)
    drained = await book(store, [*first, other, used("req_3"), used("req_3", output_tokens=1)])
    assert drained.added == 1
    after = await totals(database)
    assert {name: after[name] - before[name] for name in after} == dict.fromkeys(after, 2_600_000)
    found = await rows(database, "SELECT requests, output_tokens FROM usage_hours")
    assert found == [(4, 400)]


async def test_two_who_bring_the_same_at_once(store: UsageStore, database: Database) -> None:
    """As when two processes take up the same dead one's files."""
    batch = [used(f"req_{number}", organization_id=f"org-{number % 3}") for number in range(200)]

    async def bring(chance: random.Random) -> int:
        mine: Sequence[Usage] = chance.sample(batch, len(batch))
        return sum([(await book(store, mine[start : start + 40])).added for start in range(0, len(mine), 40)])

    added = await asyncio.gather(*(bring(random.Random(seed)) for seed in range(4)))
    assert sum(added) == len(batch)
    assert set((await totals(database)).values()) == {200 * 2_600_000}


async def test_nothing_of_a_batch_that_fails_is_there(store: UsageStore, database: Database) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the process dies here")

    with pytest.raises(RuntimeError):
        await book(store, [used("req_1")], fail)
    for table in ("usage_records", "postings", "balances", "spend", "usage_hours", "cost_hours"):
        assert await rows(database, f"SELECT * FROM {table}") == []
    await book(store, [used("req_1")])
    assert set((await totals(database)).values()) == {2_600_000}


async def test_a_month_ends_with_the_request_and_clocks_may_be_wrong(store: UsageStore, database: Database) -> None:
    january_ms, december_ms = 1_798_761_600_000, 1_798_761_599_999  # 2027-01-01 00:00 UTC
    ends = {"req_1": december_ms, "req_2": january_ms, "req_3": 5, "req_4": 2_051_222_400_000}
    await book(store, [used(name, started_at_ms=0, finished_at_ms=at_ms) for name, at_ms in ends.items()])
    months = await rows(database, "SELECT month FROM spend WHERE project_id = '' ORDER BY 1")
    assert months == [(date(1970, 1, 1),), (date(2026, 12, 1),), (date(2027, 1, 1),), (date(2035, 1, 1),)]
    assert set((await totals(database)).values()) == {4 * 2_600_000}


async def test_credits_that_expire_first_are_drawn_first(store: UsageStore, database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', 'One')")
        await connection.execute(
            "INSERT INTO credits (organization_id, id, kind, nanodollars, remaining, expires_at) VALUES "
            "('org-1', 'never', 'payment', 5000000, 5000000, NULL), "
            "('org-1', 'soon', 'grant', 2000000, 2000000, now() + interval '1 day'), "
            "('org-1', 'gone', 'grant', 9000000, 9000000, now() - interval '1 day')"
        )
    left = "SELECT id, remaining FROM credits ORDER BY id"
    await book(store, [used("req_1")])
    assert await rows(database, left) == [("gone", 9_000_000), ("never", 4_400_000), ("soon", 0)]
    await book(store, [used("req_2"), used("req_3")])
    assert await rows(database, left) == [("gone", 9_000_000), ("never", 0), ("soon", 0)]
    # What no credit covers is owed.
    assert await rows(database, "SELECT nanodollars FROM balances WHERE account = 'receivable'") == [(800_000,)]
    await book(store, [used("req_2"), used("req_3")])
    assert await rows(database, "SELECT count(*), sum(nanodollars)::int FROM postings WHERE line = 'draw'") == [
        (3, 7_000_000)
    ]


async def test_strange_texts_are_kept_as_they_are(store: UsageStore) -> None:
    strange = usage("req\\n_\t1")
    strange.model = "m\n\r\\."
    await book(store, [strange])
    found = await store.get("org-1", strange.request_id)
    assert found and found[0] == strange


@pytest.mark.parametrize("fields", [{"model": "m\0"}, {"output_tokens": -1, "operation": "x\0"}])
async def test_what_the_database_cannot_hold_is_refused(store: UsageStore, fields: dict[str, Any]) -> None:
    with pytest.raises(RecordRefusedError):
        await book(store, [used("req_1"), used("req_2", **fields)])
    assert await store.get("org-1", "req_1") is None


async def test_the_sums_of_hours(store: UsageStore, database: Database) -> None:
    rich = used(
        "req_1",
        model="free",
        operation="images.generate",
        input_image_tokens=1,
        input_audio_tokens=2,
        output_image_tokens=3,
        output_audio_tokens=4,
        images=5,
        image_size="1024x1024",
        audio_ms=6,
        characters=7,
        stored_byte_seconds=8,
        cache_write_tokens=9,
        tools=[ToolUsage(tool="web_search", calls=2)],
    )
    await book(store, [rich])
    await book(store, [used("req_2", model="free", tools=[ToolUsage(tool="web_search", calls=3)])])
    [hour] = await rows(
        database,
        "SELECT requests, images, image_size, audio_ms, characters, stored_byte_seconds, cache_write_tokens, "
        "extract(epoch FROM hour)::bigint FROM usage_hours WHERE operation = 'images.generate'",
    )
    assert hour == (1, 5, "1024x1024", 6, 7, 8, 9, (NOVEMBER_MS // 1000 - 1) // 3600 * 3600)
    assert await rows(database, "SELECT tool, requests, calls FROM tool_hours") == [("web_search", 2, 5)]


async def test_postings_are_of_two_accounts(database: Database) -> None:
    with pytest.raises(psycopg.IntegrityError):
        async with database.connection() as connection:
            await connection.execute("INSERT INTO postings VALUES ('t', 'l', 'o', '', '', '', 'a', 'a', 1, 0, 0)")
