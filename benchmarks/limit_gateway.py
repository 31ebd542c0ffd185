"""A gateway's part in hammering one limit, as a process of its own: `Orders` on its standard input, `Tally` in a file.

The tally is in memory that it shares with the file, so that what a killed gateway had granted is known to the last
request. It says `ready` when it is connected and starts at the next line on its standard input.
"""

import asyncio
import mmap
import random
import struct
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import uvloop

from services.ratelimit.buckets import BucketKey, Correction, Need, Taken
from services.ratelimit.gcra import Rate
from services.ratelimit.shared.buckets import SharedBuckets, open_shared
from services.ratelimit.shared.settings import ValkeySettings

TALLY: Final = "<QQQ"
REQUESTS, TOKENS = 1, 3


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway is to do."""

    url: str
    tally: str
    seconds: float
    requests: tuple[int, int]
    """Units and interval_ns of the bucket of requests, as of the bucket of tokens."""

    tokens: tuple[int, int]
    request_tokens: int
    used_share: float = 1.0
    """What each request uses of the tokens that it reserves."""

    clients: int = 8
    pause_s: float = 0.002
    """Between a refusal and the next attempt."""

    skew_ns: int = 0
    lease_ms: int = 150
    outage_share: float = 0.1


class Tally(NamedTuple):
    """What was granted, and how often something was raised."""

    requests: int
    tokens: int
    errors: int

    @staticmethod
    def read(path: Path) -> "Tally":
        return Tally(*struct.unpack(TALLY, path.read_bytes()))


class Gateway:
    """Clients that ask as fast as they can, and one tally for all of them."""

    def __init__(self, orders: Orders, memory: mmap.mmap) -> None:
        self._orders = orders
        self._memory = memory
        self._tally = Tally(0, 0, 0)
        self._needs = tuple(
            Need(key, Rate(*rate), 1)
            for dimension, rate in ((REQUESTS, orders.requests), (TOKENS, orders.tokens))
            for key in (
                BucketKey("organization", "org-1", "m", dimension, "org-1"),
                BucketKey("project", "proj_1", "m", dimension, "org-1"),
            )
        )

    def count(self, requests: int, tokens: int, errors: int = 0) -> None:
        now = self._tally
        self._tally = Tally(now.requests + requests, now.tokens + tokens, now.errors + errors)
        self._memory[:] = struct.pack(TALLY, *self._tally)

    async def client(self, buckets: SharedBuckets, until_s: float) -> None:
        while time.monotonic() < until_s:
            tokens = random.randint(1, self._orders.request_tokens)
            needs = [need._replace(units=tokens) if need.key.dimension == TOKENS else need for need in self._needs]
            try:
                if not await self.request(buckets, needs, tokens):
                    await asyncio.sleep(self._orders.pause_s)
            except Exception as error:
                self.count(0, 0, 1)
                print(f"raised {error!r}", file=sys.stderr)
                raise

    async def request(self, buckets: SharedBuckets, needs: list[Need], tokens: int) -> bool:
        got = await buckets.take(needs)
        if not isinstance(got, Taken):
            return False
        used = round(tokens * self._orders.used_share)
        self.count(1, used)
        await asyncio.sleep(0)
        await buckets.settle(
            [
                Correction(need.key, need.rate, claim, used if need.key.dimension == TOKENS else 1)
                for need, claim in zip(needs, got.claims, strict=True)
            ]
        )
        return True


async def hammer(orders: Orders, memory: mmap.mmap) -> None:
    gateway = Gateway(orders, memory)
    settings = ValkeySettings(url=orders.url, lease_ms=orders.lease_ms, outage_share=orders.outage_share)
    async with open_shared(settings, lambda: time.monotonic_ns() + orders.skew_ns) as buckets:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        until_s = time.monotonic() + orders.seconds
        await asyncio.gather(*(gateway.client(buckets, until_s) for _ in range(orders.clients)))


def main() -> None:
    orders = msgspec.json.decode(sys.stdin.readline(), type=Orders)
    with Path(orders.tally).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        uvloop.run(hammer(orders, memory))


if __name__ == "__main__":
    main()
