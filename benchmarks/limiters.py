"""One limiter under load, in a process of its own: `python -m benchmarks.limiters SYSTEM --url …` prints a `Cost`.

A decision of ours covers four buckets (requests and tokens, of an organisation and a project) and is corrected
afterwards. The plain bucket is what most programs do: one bucket of tokens in a Lua script, never corrected.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import msgspec
import uvloop
from valkey.asyncio import Valkey

from services.ratelimit.buckets import BucketKey, Buckets, Correction, MemoryBuckets, Need, Taken
from services.ratelimit.gcra import per_window
from services.ratelimit.shared.buckets import open_shared
from services.ratelimit.shared.connection import connect
from services.ratelimit.shared.settings import ValkeySettings

MINUTE_NS: Final = 60_000_000_000
PLAIN: Final = """
local rate, burst, units = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local state = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(state[1]) or burst
tokens = math.min(burst, tokens + (now - (tonumber(state[2]) or now)) * rate)
local allowed = tokens >= units
if allowed then tokens = tokens - units end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('EXPIRE', KEYS[1], 60)
return {allowed and 1 or 0, math.floor(tokens)}
"""
UNITS: Final = 1_000_000_000_000

Decide = Callable[[], Awaitable[bool]]
Open = Callable[[str], AbstractAsyncContextManager[Decide]]


class Cost(msgspec.Struct, frozen=True):
    """What decisions took."""

    decisions: int
    elapsed_s: float
    cpu_s: float
    """User and system time of the process."""

    warm_up_decisions: int


def ours(buckets: Buckets) -> Decide:
    """One request: taken, then corrected to less than it reserved."""
    requests, tokens = per_window(100_000_000, MINUTE_NS), per_window(6_000_000_000, MINUTE_NS)
    owners = (("organization", "org-1"), ("project", "proj_1"))
    keys = [BucketKey(scope, owner, "m", number, "org-1") for number in (1, 3) for scope, owner in owners]  # type: ignore[arg-type]

    async def decide() -> bool:
        units = random.randint(200, 1200)
        needs = [Need(key, requests, 1) if key.dimension == 1 else Need(key, tokens, units) for key in keys]
        got = await buckets.take(needs)
        if not isinstance(got, Taken):
            return False
        await buckets.settle(
            [
                Correction(need.key, need.rate, claim, units // 2)
                for need, claim in zip(needs, got.claims, strict=True)
                if need.key.dimension == 3
            ]
        )
        return True

    return decide


@asynccontextmanager
async def memory(url: str) -> AsyncIterator[Decide]:
    """The buckets of one machine."""
    yield ours(MemoryBuckets(time.monotonic_ns))


@asynccontextmanager
async def leases(url: str) -> AsyncIterator[Decide]:
    """Shared buckets as they are by default."""
    async with open_shared(ValkeySettings(url=url)) as buckets:
        yield ours(buckets)


@asynccontextmanager
async def every(url: str) -> AsyncIterator[Decide]:
    """Shared buckets without leases."""
    async with open_shared(ValkeySettings(url=url, lease_ms=0)) as buckets:
        yield ours(buckets)


@asynccontextmanager
async def plain(url: str) -> AsyncIterator[Decide]:
    """A plain bucket, through our own connection."""
    connection = await connect(url, time.monotonic_ns)
    script = await connection.call("SCRIPT", "LOAD", PLAIN)

    async def decide() -> bool:
        units = random.randint(200, 1200)
        allowed, _ = await connection.call("EVALSHA", script, 1, "plain:org-1", UNITS, UNITS, units)
        return bool(allowed)

    yield decide
    connection.close("done")


@asynccontextmanager
async def plain_client(url: str) -> AsyncIterator[Decide]:
    """A plain bucket, through the usual client."""
    client = Valkey.from_url(url)
    script = client.register_script(PLAIN)

    async def decide() -> bool:
        units = random.randint(200, 1200)
        allowed, _ = await script(keys=["plain:org-1"], args=[UNITS, UNITS, units])
        return bool(allowed)

    yield decide
    await client.aclose()


SYSTEMS: Final[dict[str, Open]] = {
    "memory": memory,
    "shared, on leases": leases,
    "shared, every decision asks": every,
    "plain Lua bucket, our connection": plain,
    "plain Lua bucket, valkey-py": plain_client,
}


async def load(decide: Decide, clients: int, seconds: float) -> Cost:
    """Keeps so many clients busy. Raises RuntimeError when anything is refused."""
    decisions = 0

    async def client(until_s: float) -> None:
        nonlocal decisions
        while time.monotonic() < until_s:
            if not await decide():
                raise RuntimeError("refused, although there is plenty")
            decisions += 1
            # A decision in memory never waits; the clients take turns all the same.
            await asyncio.sleep(0)

    await asyncio.gather(*(client(time.monotonic() + 0.5) for _ in range(clients)))
    warm_up, decisions = decisions, 0
    started_s, cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(client(started_s + seconds) for _ in range(clients)))
    return Cost(decisions, time.monotonic() - started_s, time.process_time() - cpu_s, warm_up)


async def run(name: str, url: str, clients: int, seconds: float) -> Cost:
    async with SYSTEMS[name](url) as decide:
        return await load(decide, clients, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    cost = uvloop.run(run(given.system, given.url, given.clients, given.seconds))
    sys.stdout.write(msgspec.json.encode(cost).decode())


if __name__ == "__main__":
    main()
