"""SharedBuckets against a real Valkey: what it grants, when it asks, and what it gives back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from benchmarks.valkey import ValkeyServer
from services.ratelimit.buckets import BucketKey, Correction, Need, Short, Taken
from services.ratelimit.gcra import Claim, per_window
from services.ratelimit.shared.buckets import LOCAL, SharedBuckets, open_shared
from services.ratelimit.shared.connection import Connection
from services.ratelimit.shared.function import Ask, Function, Request
from services.ratelimit.shared.link import SHARED
from services.ratelimit.shared.settings import ValkeySettings
from services.settings import SettingsError

MINUTE_NS = 60_000_000_000
REQUESTS = Need(BucketKey("organization", "org-1", "m", 1, "org-1"), per_window(1_000, MINUTE_NS), 1)
TOKENS = Need(BucketKey("project", "proj_1", "m", 3, "org-1"), per_window(100_000, MINUTE_NS), 50)
Open = Callable[..., AbstractAsyncContextManager[SharedBuckets]]


@pytest.fixture
def gateway(valkey_process: ValkeyServer, valkey: Connection) -> Open:
    """Opens buckets as a gateway does, with settings."""

    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[SharedBuckets]:
        async with open_shared(ValkeySettings(url=valkey_process.url, **settings)) as buckets:
            yield buckets

    return opened


async def calls(valkey: Connection) -> int:
    """How often Valkey was asked for a decision or a correction since its counters were reset."""
    info: bytes = await valkey.call("INFO", "commandstats")
    lines = [line for line in info.decode().splitlines() if line.startswith("cmdstat_fcall:")]
    return int(lines[0].split("calls=")[1].split(",")[0]) if lines else 0


async def remaining(valkey: Connection, need: Need) -> int:
    """What Valkey itself says is left."""
    reply = await Function().decide(valkey, Request(asks=(Ask(need._replace(units=0)),)))
    [answer] = reply.answers
    return answer.bucket().remaining(need.rate, answer.now_ns - answer.held_ns)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def taken(buckets: SharedBuckets, *needs: Need) -> tuple[Claim, ...]:
    got = await buckets.take(needs)
    assert isinstance(got, Taken)
    return got.claims


def count(reason: str) -> float:
    return float(LOCAL.labels(reason)._value.get())


async def test_few_requests_ask_once_each_and_lease_nothing(gateway: Open, valkey: Connection) -> None:
    async with gateway(lease_ms=1) as buckets:
        await valkey.call("CONFIG", "RESETSTAT")
        for expected in (999, 998):
            got = await buckets.take((REQUESTS, TOKENS))
            assert isinstance(got, Taken)
            assert got.levels[0].limit == 1_000
            assert got.levels[0].remaining == expected
            assert got.levels[1].remaining >= 99_900
            await asyncio.sleep(0.005)
        assert await calls(valkey) == 2


async def test_many_requests_are_decided_on_leases_and_what_is_left_returns(gateway: Open, valkey: Connection) -> None:
    before = count("lease")
    async with gateway(lease_ms=2_000) as buckets:
        await valkey.call("CONFIG", "RESETSTAT")
        for _ in range(100):
            await taken(buckets, REQUESTS, TOKENS)
        assert count("lease") - before >= 80
        assert await calls(valkey) < 20
        assert await remaining(valkey, REQUESTS) < 900
    # Closed: the leases went back, and what was used stays. A unit returns every 60 ms.
    assert 900 <= await remaining(valkey, REQUESTS) <= 940


async def test_an_idle_lease_returns_by_itself(gateway: Open, valkey: Connection) -> None:
    async with gateway(lease_ms=100) as buckets:
        for _ in range(10):
            await taken(buckets, REQUESTS)

        async def returned() -> bool:
            return await remaining(valkey, REQUESTS) >= 990

        await until(returned)
        assert not buckets._leased


async def test_two_gateways_share_one_limit(gateway: Open) -> None:
    need = REQUESTS._replace(rate=per_window(40, 1440 * MINUTE_NS))
    async with gateway() as one, gateway() as other:
        granted = 0
        for _ in range(40):
            for buckets in (one, other):
                granted += isinstance(await buckets.take((need,)), Taken)
    assert 37 <= granted <= 40


async def test_a_refusal_names_the_longest_wait_and_is_remembered(gateway: Open, valkey: Connection) -> None:
    async with gateway(lease_ms=5_000) as buckets:
        await taken(buckets, REQUESTS, TOKENS._replace(units=99_990))
        await valkey.call("CONFIG", "RESETSTAT")
        for _ in range(20):
            got = await buckets.take((REQUESTS, TOKENS._replace(units=9_000)))
            assert isinstance(got, Short)
            assert got.index == 1
            assert got.wait_ns is not None
            assert 5_000_000_000 < got.wait_ns < 5_400_000_000
            assert got.levels[0].remaining == 999
        assert await calls(valkey) == 1
        assert await remaining(valkey, REQUESTS) == 999


async def test_what_never_fits_says_so_without_asking(gateway: Open, valkey: Connection) -> None:
    async with gateway() as buckets:
        await valkey.call("CONFIG", "RESETSTAT")
        got = await buckets.take((REQUESTS, TOKENS._replace(units=100_001)))
        assert isinstance(got, Short)
        assert (got.index, got.wait_ns) == (1, None)
        assert await calls(valkey) == 0


async def test_what_a_client_gave_back_it_can_take_at_once(gateway: Open) -> None:
    everything = TOKENS._replace(units=100_000)
    async with gateway(settle_ms=1_000) as buckets:
        for _ in range(5):
            [claim] = await taken(buckets, everything)
            assert isinstance(await buckets.take((everything,)), Short)
            await buckets.settle([Correction(everything.key, everything.rate, claim, 0)])


async def test_overuse_is_a_debt(gateway: Open, valkey: Connection) -> None:
    async with gateway(lease_ms=0) as buckets:
        [claim] = await taken(buckets, TOKENS)
        await buckets.settle([Correction(TOKENS.key, TOKENS.rate, claim, 150_000)])
        got = await buckets.take((TOKENS,))
        assert isinstance(got, Short)
        assert got.levels[0].remaining == 0
        assert got.wait_ns is not None
        assert got.wait_ns > 29 * 1_000_000_000


async def test_top_ups_are_taken_without_asking_whether_they_fit(gateway: Open, valkey: Connection) -> None:
    async with gateway() as buckets:
        [claim] = await buckets.extend((TOKENS._replace(units=120_000),))
        assert claim.units == 120_000
        assert isinstance(await buckets.take((TOKENS,)), Short)
        await buckets.settle([Correction(TOKENS.key, TOKENS.rate, claim, 0)])
        await taken(buckets, TOKENS)


async def test_a_cancelled_take_gives_back(gateway: Open, valkey: Connection) -> None:
    async with gateway(settle_ms=5) as buckets:
        await taken(buckets, REQUESTS)
        await valkey.call("CLIENT", "PAUSE", "100", "ALL")
        task = asyncio.create_task(buckets.take((REQUESTS._replace(units=500),)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def returned() -> bool:
            return await remaining(valkey, REQUESTS) >= 999

        await until(returned)


async def test_a_lost_function_is_loaded_again(gateway: Open, valkey: Connection) -> None:
    async with gateway(lease_ms=0) as buckets:
        await taken(buckets, REQUESTS)
        await valkey.call("FUNCTION", "FLUSH")
        await valkey.call("FLUSHALL")
        await taken(buckets, REQUESTS)
        assert await remaining(valkey, REQUESTS) == 999
        assert SHARED._value.get() == 1


async def test_a_changed_limit_holds_at_once(gateway: Open) -> None:
    async with gateway(lease_ms=2_000) as buckets:
        for _ in range(20):
            await taken(buckets, REQUESTS)
        less = REQUESTS._replace(rate=per_window(10, MINUTE_NS), units=10)
        assert isinstance(await buckets.take((less,)), Short)


async def test_nothing_needed_is_granted(gateway: Open) -> None:
    async with gateway() as buckets:
        assert await buckets.take(()) == Taken((), ())


async def test_an_address_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_VALKEY_URL"):
        async with open_shared(ValkeySettings(url="localhost:6379")):
            pass
