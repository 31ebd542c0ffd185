"""Whatever step of a drain a crash falls on, the next one changes nothing twice and leaves nothing out."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.billing.drainer import Drainer
from services.billing.frames import encode
from services.billing.funds import Funds
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from services.billing.store import Batch, UsageStore
from services.billing.store.prices import book
from services.billing.store.usage import Drained, Told
from services.faults import Unavailable
from services.storage import Database
from tests.audited import assert_clean
from tests.services.billing.money import MODEL, ORGANIZATION, PROJECT, asking, funds_of, furnish, leased, used
from tests.services.billing.usages import recording

SETTINGS = BillingSettings(drain_interval_ms=3_600_000)
OUTPUT_TOKENS = 50
COST = OUTPUT_TOKENS * 10_000
TABLES = ("usage_records", "postings", "usage_hours", "tool_hours", "balances", "spend", "cost_hours")


class Process:
    """What of billing drains, without its background work, so that leases change only when they are told to."""

    def __init__(self, spool: Spool, funds: Funds, drainer: Drainer) -> None:
        self.spool = spool
        self.funds = funds
        self.drainer = drainer

    async def serve(self, requests: int) -> None:
        """Requests as a gateway has them."""
        for _ in range(requests):
            request = asking()
            await self.funds.hold(request)
            usage = used(request, OUTPUT_TOKENS)
            self.spool.append([usage.SerializeToString()])
            self.funds.settle(usage)


@asynccontextmanager
async def process(
    folder: Path, database: Database, store: UsageStore | None = None, hold_s: float = 900.0
) -> AsyncIterator[Process]:
    settings = BillingSettings(hold_s=hold_s, orphan_s=0)
    spool = Spool(folder, settings)
    await spool.open()
    async with funds_of(database) as funds:
        yield Process(spool, funds, Drainer(spool, store or UsageStore(database, book), funds, settings))
    await spool.close()


def contents(url: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}".encode()).fetchall() for table in TABLES}


def add_credit(url: str, nanodollars: int) -> None:
    """Booked as the ledger books a grant."""
    values = (ORGANIZATION, "grant_1", nanodollars)
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO credits (organization_id, id, kind, nanodollars, remaining) VALUES (%s, %s, 'grant', %s, %s)",
            (*values, nanodollars),
        )
        connection.execute(
            "INSERT INTO postings VALUES (%s, 'grant', %s, '', '', '', 'grants', 'credits', %s, 0, 0)",
            ("grant_1", ORGANIZATION, nanodollars),
        )
        for account, change in (("grants", nanodollars), ("credits", -nanodollars)):
            connection.execute("INSERT INTO balances VALUES (%s, %s, %s)", (ORGANIZATION, account, change))


@contextmanager
def deadly(url: str, table: str, *, at_commit: bool = False) -> Iterator[None]:
    """Within the block whoever writes to the table is killed, right then or when he commits."""
    trigger = (
        f"CREATE CONSTRAINT TRIGGER die AFTER INSERT OR UPDATE ON {table} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        if at_commit
        else f"CREATE TRIGGER die AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$"
        )
        connection.execute(f"{trigger} EXECUTE FUNCTION die()".encode())
        yield
        connection.execute("DROP FUNCTION die CASCADE")


@pytest.mark.parametrize(
    ("table", "at_commit"),
    [(table, False) for table in (*TABLES, "spend_leases", "credits") if table != "tool_hours"]
    + [("usage_records", True)],
)
async def test_killed_between_any_two_steps(
    tmp_path: Path, database: Database, database_url: str, table: str, at_commit: bool
) -> None:
    furnish(database_url)
    add_credit(database_url, 3 * COST)
    async with process(tmp_path, database) as billing:
        await billing.serve(5)
        before, had = contents(database_url), leased(database_url)
        with deadly(database_url, table, at_commit=at_commit), pytest.raises(Unavailable):
            await billing.drainer.drain()
        assert contents(database_url) == before
        assert leased(database_url) == had
        await billing.drainer.drain()
        assert leased(database_url) == had - 5 * COST
    assert len(contents(database_url)["usage_records"]) == 5
    await assert_clean(database_url)


class Unheard(UsageStore):
    """Its first commits are done, and nobody hears of them."""

    lost = 2

    async def add(self, batch: Batch, told: Told | None = None) -> Drained:
        drained = await super().add(batch, told)
        if self.lost:
            self.lost -= 1
            raise Unavailable("database_unavailable", "The connection was lost.")
        return drained


async def test_a_commit_that_nobody_heard_of(tmp_path: Path, database: Database, database_url: str) -> None:
    furnish(database_url)
    async with process(tmp_path, database, Unheard(database, book)) as billing:
        await billing.serve(4)
        had = leased(database_url)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await billing.drainer.drain()
            # It is told in absolute figures, so it may be told again.
            assert leased(database_url) == had - 4 * COST
        await billing.drainer.drain()
        assert leased(database_url) == had - 4 * COST
    assert len(contents(database_url)["usage_records"]) == 4
    await assert_clean(database_url)


async def test_what_a_dead_process_left_is_not_paid_out_of_this_ones_lease(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    furnish(database_url)
    died = Spool(tmp_path, SETTINGS)
    await died.open()
    open_request, recorded = used(asking(), 30), used(asking(), 40)
    died.checkpoint([(open_request.request_id, open_request.SerializeToString())])
    died.append([recorded.SerializeToString()])
    await died.close()
    async with process(tmp_path, database) as billing:
        await billing.serve(1)
        had = leased(database_url)
        await billing.drainer.drain()
        assert len(contents(database_url)["usage_records"]) == 2
        # The checkpoint comes after the records of its process.
        await billing.spool.adopt()
        await billing.drainer.drain()
        assert len(contents(database_url)["usage_records"]) == 3
        assert leased(database_url) == had - COST
    assert not list(tmp_path.iterdir())
    await assert_clean(database_url)


async def test_a_request_that_nobody_ends_is_paid_out_of_the_lease(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    furnish(database_url)
    async with process(tmp_path, database, hold_s=1.0) as billing:
        request = asking()
        await billing.funds.hold(request)
        usage = used(request, OUTPUT_TOKENS)
        billing.spool.checkpoint([(usage.request_id, usage.SerializeToString())])
        had = leased(database_url)
        looking = asyncio.create_task(billing.drainer.keep_adopting())
        await asyncio.wait_for(billing.spool.filled(), 30)
        looking.cancel()
        assert billing.funds.held_nanodollars == 0
        await billing.drainer.drain()
        assert leased(database_url) == had - COST
    assert len(contents(database_url)["usage_records"]) == 1
    await assert_clean(database_url)


@pytest.mark.parametrize("at_ms", [-1, 2**62])
async def test_a_time_that_no_calendar_has_is_kept_aside(
    tmp_path: Path, database: Database, database_url: str, at_ms: int
) -> None:
    wrong, right = used(asking(), 1), used(asking(), 1)
    wrong.finished_at_ms = at_ms
    furnish(database_url)
    async with serving(tmp_path, database, SETTINGS) as billing:
        await billing.record(recording(wrong, right))
        await billing.drain()
    assert len(contents(database_url)["usage_records"]) == 1
    (aside,) = (tmp_path / "aside").iterdir()
    assert aside.read_bytes() == wrong.SerializeToString()


async def test_refused_records_in_batches_that_are_priced_ahead(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    furnish(database_url)
    usages = [used(asking(), OUTPUT_TOKENS) for _ in range(60)]
    for number in (0, 17, 19, 59):
        usages[number].model = f"{MODEL}\0"
    (tmp_path / "1.usage").write_bytes(b"".join([encode(usage.SerializeToString()) for usage in usages]))
    async with serving(tmp_path, database, BillingSettings(drain_interval_ms=3_600_000, drain_records=10)) as billing:
        await billing.drain()
    assert len(contents(database_url)["usage_records"]) == 56
    assert len(list((tmp_path / "aside").iterdir())) == 4
    await assert_clean(database_url)


async def test_a_price_that_comes_between_two_batches(database: Database, database_url: str) -> None:
    """What was priced ahead is priced again by the book that the transaction sees."""
    store = UsageStore(database, book)
    ahead = await store.prepare([used(asking(), OUTPUT_TOKENS)])
    furnish(database_url)
    drained = await store.add(ahead)
    assert drained.costs == [(ORGANIZATION, PROJECT, COST)]
    await assert_clean(database_url)


async def test_the_event_loop_goes_on(tmp_path: Path, database: Database, database_url: str) -> None:
    furnish(database_url)
    records = [encode(used(asking(), number).SerializeToString()) for number in range(5000)]
    (tmp_path / "1.usage").write_bytes(b"".join(records))
    worst_s = 0.0

    async def watch() -> None:
        nonlocal worst_s
        while True:
            # By the thread's own time: others use this machine too.
            before_s = time.thread_time()
            await asyncio.sleep(0)
            worst_s = max(worst_s, time.thread_time() - before_s)

    # What the tests before this one left is not to be looked through, as in the platform.
    gc.collect()
    gc.freeze()
    try:
        async with serving(tmp_path, database, SETTINGS) as billing:
            watching = asyncio.create_task(watch())
            await billing.drain()
            watching.cancel()
    finally:
        gc.unfreeze()
    assert len(contents(database_url)["usage_records"]) == 5000
    assert worst_s < 0.03
