"""Several gateways with leases on one bucket keep its law in every window of time, whatever they do in whatever order.

They are driven on a clock that only the test moves, against the real function.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from services.ratelimit.buckets import BucketKey, Correction, Need, Taken
from services.ratelimit.gcra import Claim, Rate
from services.ratelimit.shared.buckets import SharedBuckets
from services.ratelimit.shared.connection import Connection
from services.ratelimit.shared.function import Ask, Function, Reply, Request
from services.ratelimit.shared.link import Link
from services.ratelimit.shared.settings import ValkeySettings

KEY = BucketKey("organization", "org-1", "m", 1, "org-1")
SETTINGS = ValkeySettings(url="valkey://not-asked", lease_ms=150, lease_share=1.0)


class Clock:
    """Nanoseconds that a test moves on."""

    def __init__(self) -> None:
        self.now_ns = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


class SteppedLink(Link):
    """A link whose decisions are made at the time of the test's clock."""

    def __init__(self, clock: Clock, valkey: Connection, holder: int) -> None:
        super().__init__(SETTINGS, clock)
        self._stepped, self._valkey, self.holder = clock, valkey, holder

    @property
    def is_open(self) -> bool:
        return True

    async def decide(self, request: Request, late: Callable[[Reply], None] | None = None) -> Reply:
        stepped = request._replace(clock_us=self._stepped.now_ns // 1000)
        return await Function().decide(self._valkey, stepped, late)


@dataclass
class Served:
    """What one request was granted, and uses."""

    at_ns: int
    units: int
    claim: Claim
    gateway: SharedBuckets


@pytest.mark.parametrize("seed", range(30))
async def test_no_window_holds_more_than_the_limit(valkey: Connection, seed: int) -> None:
    chance = random.Random(seed)
    rate = Rate(chance.choice((5, 40, 300)), chance.choice((1_000_000, 7_000_000, 100_000_000)))
    clock = Clock()
    pauses_ns = (80_000_000, rate.units * rate.interval_ns)
    gateways = [SharedBuckets(SETTINGS, SteppedLink(clock, valkey, holder), clock) for holder in (1, 2, 3)]
    served: list[Served] = []
    unsettled: list[Served] = []
    for _ in range(300):
        clock.now_ns += chance.choice((0, 0, 0, 0, 0, 1_000, rate.interval_ns, 20_000_000, chance.choice(pauses_ns)))
        gateway = chance.choice(gateways)
        action = chance.random()
        if action < 0.1:
            gateway.tend()
        elif action < 0.3 and unsettled:
            done = unsettled.pop(chance.randrange(len(unsettled)))
            used = chance.randint(0, done.units)
            await done.gateway.settle([Correction(KEY, rate, done.claim, used)])
            done.units = used
        elif action < 0.34:
            # One dies, and another takes its place.
            gateways[gateways.index(gateway)] = SharedBuckets(
                SETTINGS, SteppedLink(clock, valkey, chance.randint(10, 10**9)), clock
            )
        else:
            units = chance.randint(1, 5)
            got = await gateway.take((Need(KEY, rate, units),))
            if isinstance(got, Taken):
                served.append(Served(clock.now_ns, units, got.claims[0], gateway))
                unsettled.append(served[-1])
        if chance.random() < 0.7:
            await asyncio.sleep(0)
    for gateway in gateways:
        await gateway.close()
    assert len(served) > 20
    for first, start in enumerate(served):
        total = 0
        for item in served[first:]:
            total += item.units
            assert (total - rate.units) * rate.interval_ns <= item.at_ns - start.at_ns
    # Nothing is held for ever: a while later the bucket is full.
    clock.now_ns += (rate.units * 3 + 10) * rate.interval_ns + 2_000_000_000
    reply = await SteppedLink(clock, valkey, 99).decide(Request(asks=(Ask(Need(KEY, rate, rate.units)),)))
    assert reply.fits
