"""Without Valkey: a bounded share of the limits, at once, said once, and over as soon as it is back."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from benchmarks.valkey import ValkeyServer
from services.ratelimit.buckets import BucketKey, Correction, Need, Short, Taken
from services.ratelimit.gcra import Rate, per_window
from services.ratelimit.shared.buckets import SharedBuckets, open_shared
from services.ratelimit.shared.connection import connect
from services.ratelimit.shared.outage import Allowance, is_own
from services.ratelimit.shared.settings import ValkeySettings

MINUTE_NS = 60_000_000_000
KEY = BucketKey("organization", "org-1", "m", 1, "org-1")
RATE = Rate(100, 1_000)
DAY = per_window(100, 1440 * MINUTE_NS)


def test_the_share_refills_at_its_share_of_the_rate() -> None:
    allowance = Allowance(0.1)
    one = (Need(KEY, RATE, 1),)
    assert [isinstance(allowance.take(one, 5), Taken) for _ in range(11)] == [True] * 10 + [False]
    short = allowance.take(one, 5)
    assert short == Short(0, 10_000, (short.levels[0],))
    assert short.levels[0][:2] == (100, 0)
    assert isinstance(allowance.take(one, 10_005), Taken)


def test_a_request_larger_than_the_share_waits_for_the_whole_share_and_leaves_a_debt() -> None:
    allowance = Allowance(0.1)
    large = (Need(KEY, RATE, 60),)
    assert isinstance(allowance.take(large, 0), Taken)
    short = allowance.take(large, 0)
    assert isinstance(short, Short)
    assert short.wait_ns == 600_000
    assert isinstance(allowance.take(large, 600_000), Taken)
    never = allowance.take((Need(KEY, RATE, 101),), 10**9)
    assert isinstance(never, Short)
    assert never.wait_ns is None


def test_its_claims_are_told_apart_and_settled_here() -> None:
    allowance = Allowance(0.1)
    taken = allowance.take((Need(KEY, RATE, 10),), 0)
    assert isinstance(taken, Taken)
    assert is_own(taken.claims[0])
    allowance.settle(Correction(KEY, RATE, taken.claims[0], 0), 0)
    assert isinstance(allowance.take((Need(KEY, RATE, 10),), 0), Taken)
    allowance.sweep(100_000)
    assert isinstance(allowance.take((Need(KEY, RATE, 10),), 100_000), Taken)


def test_all_or_nothing() -> None:
    allowance = Allowance(0.1)
    other = BucketKey("project", "proj_1", "m", 1, "org-1")
    assert isinstance(allowance.take((Need(KEY, RATE, 10),), 0), Taken)
    assert isinstance(allowance.take((Need(other, RATE, 10), Need(KEY, RATE, 1)), 0), Short)
    assert isinstance(allowance.take((Need(other, RATE, 10),), 0), Taken)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def is_shared() -> bool:
    return REGISTRY.get_sample_value("modelplane_ratelimit_shared") == 1


async def granted(buckets: SharedBuckets, attempts: int) -> int:
    """Of so many requests on a limit of 100 a day."""
    return sum([isinstance(await buckets.take((Need(KEY, DAY, 1),)), Taken) for _ in range(attempts)])


async def test_a_valkey_that_is_not_there_yet(own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "services.ratelimit.shared.link")
    own_valkey.kill()
    async with open_shared(ValkeySettings(url=own_valkey.url, lease_ms=0)) as buckets:
        await until(lambda: not is_shared())
        assert await granted(buckets, 50) == 10
        [claim] = await buckets.extend((Need(KEY, DAY, 5),))
        await buckets.settle([Correction(KEY, DAY, claim, 0)])
        own_valkey.start()
        await until(is_shared)
        assert await granted(buckets, 150) == 100
        own_valkey.kill()
        await until(lambda: not is_shared())
        # What was granted in the first outage is not granted again.
        assert await granted(buckets, 50) == 0
    lines = [record.getMessage() for record in caplog.records]
    assert [line.startswith("Valkey is out of reach") for line in lines] == [True, False, True]


async def test_a_valkey_that_does_not_answer(own_valkey: ValkeyServer) -> None:
    async with open_shared(ValkeySettings(url=own_valkey.url, lease_ms=0, timeout_ms=100)) as buckets:
        assert await granted(buckets, 5) == 5
        os.kill(own_valkey.pid, signal.SIGSTOP)
        started_s = time.monotonic()
        try:
            assert await granted(buckets, 50) == 10
            assert time.monotonic() - started_s < 2
            await until(lambda: not is_shared())
        finally:
            os.kill(own_valkey.pid, signal.SIGCONT)
        await until(is_shared)
        # The one call that was not answered may have been carried out.
        assert 94 <= await granted(buckets, 100) <= 95


async def test_a_valkey_that_is_full(own_valkey: ValkeyServer) -> None:
    async with open_shared(ValkeySettings(url=own_valkey.url, lease_ms=0)) as buckets:
        connection = await connect(own_valkey.url, time.monotonic_ns)
        await connection.call("CONFIG", "SET", "maxmemory", "1")
        assert await granted(buckets, 50) == 10
        await until(lambda: not is_shared())
        await connection.call("CONFIG", "SET", "maxmemory", "0")
        await until(is_shared)
        assert await granted(buckets, 150) == 100
        connection.close("the test is over")
