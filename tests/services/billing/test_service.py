"""Billing from the record to the ledger, on a real database that comes and goes."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from modelplane.usage.v1 import usage_pb2
from services.billing.frames import encode
from services.billing.service import Billing, serving
from services.billing.settings import BillingSettings
from services.faults import InvalidRequest, NotFound, RateLimited, Unavailable
from services.storage import Database
from tests.services.billing import money
from tests.services.billing.usages import asking, recording, usage

Outage = Callable[[], AbstractContextManager[None]]
NEVER_MS = 3_600_000


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """One that gives up soon when it is away."""
    database = Database(database_url, wait_s=0.3)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def outage(database_url: str, postgres: str) -> Outage:
    """The database refuses everybody within the block."""
    name = conninfo_to_dict(database_url)["dbname"]

    @contextmanager
    def away() -> Iterator[None]:
        with psycopg.connect(make_conninfo(postgres), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())

    return away


def billing(folder: Path, database: Database, **settings: Any) -> AbstractAsyncContextManager[Billing]:
    return serving(folder, database, BillingSettings(**{"retry_ms": 200} | settings))


def ledger(url: str) -> dict[str, int]:
    """Output tokens by request id."""
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT request_id, output_tokens FROM usage_records").fetchall())


async def until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


async def test_a_record_reaches_the_ledger_whole(tmp_path: Path, database: Database, database_url: str) -> None:
    made = usage()
    async with billing(tmp_path, database) as service:
        await service.record(recording(made))
        await until(lambda: made.request_id in ledger(database_url))
        assert (await service.get_usage(asking(made.request_id))).usage == made
    assert not list(tmp_path.iterdir())


async def test_a_caller_sees_its_own_write(tmp_path: Path, database: Database) -> None:
    made = usage()
    async with billing(tmp_path, database, drain_interval_ms=NEVER_MS) as service:
        await service.record(recording(made))
        assert (await service.get_usage(asking(made.request_id))).usage == made


async def test_duplicates_count_once(tmp_path: Path, database: Database, database_url: str) -> None:
    before = metric("modelplane_usage_duplicate_records_total")
    async with billing(tmp_path, database, drain_interval_ms=NEVER_MS) as service:
        await service.record(recording(usage("req_1", 7), usage("req_1", 8), usage("req_2", 1)))
        await service.record(recording(usage("req_2", 2)))
        await service.drain()
        await service.record(recording(usage("req_1", 9), usage("req_3", 3)))
        await service.drain()
    assert ledger(database_url) == {"req_1": 7, "req_2": 1, "req_3": 3}
    assert metric("modelplane_usage_duplicate_records_total") - before == 3


async def test_many_batches(tmp_path: Path, database: Database, database_url: str) -> None:
    made = [usage(output_tokens=number) for number in range(500)]
    async with billing(tmp_path, database, drain_records=33, segment_bytes=5000) as service:
        await asyncio.gather(*(service.record(recording(one)) for one in made))
    assert ledger(database_url) == {one.request_id: one.output_tokens for one in made}


async def test_serving_goes_on_while_the_database_is_away(
    tmp_path: Path, database: Database, database_url: str, outage: Outage
) -> None:
    made = [usage() for _ in range(50)]
    async with billing(tmp_path, database, drain_interval_ms=10) as service:
        await service.record(recording(made[0]))
        await until(lambda: len(ledger(database_url)) == 1)
        with outage():
            for one in made[1:]:
                await service.record(recording(one))
            await service.ping()
            with pytest.raises(Unavailable, match="database_unavailable"):
                await service.get_usage(asking(made[1].request_id))
            await service.drain()
            assert metric("modelplane_spool_records") == 49
            assert metric("modelplane_spool_bytes") > 0
            assert metric("modelplane_spool_oldest_seconds") > 0
        await until(lambda: len(ledger(database_url)) == 50)
        await until(lambda: metric("modelplane_spool_records") == 0)
        assert metric("modelplane_spool_bytes") == metric("modelplane_spool_oldest_seconds") == 0


async def test_an_outage_at_the_end_leaves_usage_for_the_next_start(
    tmp_path: Path, database: Database, database_url: str, outage: Outage
) -> None:
    made = usage()
    with outage():
        async with billing(tmp_path, database, drain_interval_ms=NEVER_MS) as service:
            await service.record(recording(made))
    async with billing(tmp_path, database, drain_interval_ms=10):
        await until(lambda: made.request_id in ledger(database_url))


async def test_a_full_spool_is_said_and_passes(tmp_path: Path, database: Database, outage: Outage) -> None:
    async with billing(tmp_path, database, spool_bytes=2000, drain_interval_ms=10) as service:
        with outage():
            with pytest.raises(Unavailable, match="spool_full"):
                for _ in range(100):
                    await service.record(recording(usage()))
            await service.record(recording())
        await until_good(lambda: service.record(recording(usage())))


async def until_good(action: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            await action()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_record_that_the_database_refuses_is_kept_aside(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    made = [usage() for _ in range(20)]
    poison = usage()
    poison.model = "a\0b"
    async with billing(tmp_path, database, drain_interval_ms=NEVER_MS) as service:
        await service.record(recording(*made[:7], poison, *made[7:]))
        await service.drain()
        assert ledger(database_url).keys() == {one.request_id for one in made}
    (aside,) = (tmp_path / "aside").iterdir()
    assert usage_pb2.Usage.FromString(aside.read_bytes()) == poison


async def test_damage_is_kept_aside_and_a_torn_end_is_dropped(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    made = [usage() for _ in range(3)]
    first, second, third = (encode(one.SerializeToString()) for one in made)
    damaged = second[:30] + bytes([second[30] ^ 1]) + second[31:]
    (tmp_path / "1.usage").write_bytes(first + damaged + third + encode(b"\xff not a record") + third[:-5])
    async with billing(tmp_path, database) as service:
        await service.drain()
        assert ledger(database_url).keys() == {made[0].request_id, made[2].request_id}
    kept = sorted((tmp_path / "aside").iterdir())
    assert [path.read_bytes() for path in kept] == [damaged, b"\xff not a record"]
    assert [path.name for path in tmp_path.iterdir()] == ["aside"]


async def test_records_that_cannot_be_are_refused(tmp_path: Path, database: Database) -> None:
    async with billing(tmp_path, database) as service:
        huge = usage()
        huge.model = "x" * 70_000
        for wrong in (usage_pb2.Usage(model="x"), huge):
            with pytest.raises(InvalidRequest, match="invalid_value"):
                await service.record(recording(usage("req_good"), wrong))
        with pytest.raises(NotFound, match="usage_not_found"):
            await service.get_usage(asking("req_good"))


async def test_kill_9_while_recording_and_draining_loses_nothing(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    acknowledged: set[str] = set()
    for _ in range(3):
        program = [sys.executable, "-m", "tests.services.billing.recorder", str(tmp_path), database_url]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.add(process.stdout.readline().strip())
            await asyncio.sleep(random.uniform(0.0, 0.2))
            process.kill()
            acknowledged.update(line.strip() for line in process.stdout if line.endswith("\n"))
    async with billing(tmp_path, database) as service:
        await service.drain()
        assert acknowledged <= ledger(database_url).keys()
    assert not list(tmp_path.iterdir())


async def test_what_could_not_be_recorded_is_not_served(tmp_path: Path, database: Database) -> None:
    one = usage()
    full = len(encode(one.SerializeToString()))
    async with billing(tmp_path, database, spool_bytes=full, drain_interval_ms=NEVER_MS) as service:
        with pytest.raises(Unavailable, match="model_not_priced"):
            await service.hold(money.asking(model="unknown"))
        await service.record(recording(one))
        # That is asked first.
        with pytest.raises(Unavailable, match="spool_full"):
            await service.hold(money.asking(model="unknown"))


async def test_money_goes_from_the_hold_through_the_spool_into_the_ledger(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    money.furnish(database_url, limit_cents=1)
    fits = money.CENT // (100 * money.OUTPUT)
    now_ms = time.time_ns() // 1_000_000
    async with billing(tmp_path, database, drain_interval_ms=1) as service:
        for _ in range(2 * fits):
            request = money.asking(50, 50)
            await service.hold(request)
            record = money.used(request, 50)
            record.started_at_ms = record.finished_at_ms = now_ms
            await service.record(recording(record))
        await service.drain()
        with pytest.raises(RateLimited, match="insufficient_quota"):
            await service.hold(money.asking())
        with psycopg.connect(database_url) as connection:
            spent = connection.execute("SELECT nanodollars FROM spend WHERE project_id = ''").fetchone()
        assert spent == (money.CENT,)
        assert money.leased(database_url) == 0
        found = await service.get_usage(asking(request.request_id, money.ORGANIZATION))
        assert found.nanodollars == 50 * money.OUTPUT
