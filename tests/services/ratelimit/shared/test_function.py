"""The function in Valkey and the arithmetic in Python are one law: driven side by side, they agree exactly."""

import random
from collections.abc import Sequence

import pytest

from services.ratelimit.buckets import BucketKey, Correction, MemoryBuckets, Need, Short, Taken
from services.ratelimit.gcra import Claim, Rate, per_window
from services.ratelimit.shared.connection import Connection
from services.ratelimit.shared.function import Ask, Function, Reply, Request

MINUTE_NS = 60_000_000_000
START_US = 1_800_000_000_000_000
RATES = (
    per_window(3, MINUTE_NS),
    per_window(500, MINUTE_NS),
    per_window(150_000_000, MINUTE_NS),
    per_window(10_000, 1440 * MINUTE_NS),
    Rate(0, MINUTE_NS),
)
KEYS = tuple(BucketKey("organization", "org-1", "m", dimension) for dimension in range(len(RATES)))


class Clock:
    """The time of both sides, in microseconds."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us * 1000


class Pair:
    """The function and the memory, asked the same at the same time."""

    def __init__(self, valkey: Connection) -> None:
        self.valkey = valkey
        self.clock = Clock()
        self.function = Function()
        self.memory = MemoryBuckets(self.clock)

    async def decide(self, request: Request) -> Reply:
        return await self.function.decide(self.valkey, request._replace(clock_us=self.clock.now_us))

    async def take(self, needs: Sequence[Need]) -> tuple[Claim, ...]:
        """Takes on both sides. Returns the claims, none when it did not fit."""
        reply = await self.decide(Request(asks=asks(*needs)))
        expected = await self.memory.take(needs)
        assert reply.fits == isinstance(expected, Taken)
        for answer, need, level in zip(reply.answers, needs, expected.levels, strict=True):
            bucket = answer.bucket()
            if isinstance(expected, Taken):
                bucket.take(need.rate, need.units, answer.now_ns)
            assert bucket.until_full_ns(answer.now_ns) == level.until_full_ns
            assert bucket.remaining(need.rate, answer.now_ns) == level.remaining
        if isinstance(expected, Short):
            return ()
        claims = tuple(answer.claim(need.units) for answer, need in zip(reply.answers, needs, strict=True))
        for ours, theirs in zip(claims, expected.claims, strict=True):
            assert ours[:3] == theirs[:3]
        return claims


def asks(*needs: Need) -> tuple[Ask, ...]:
    return tuple(map(Ask, needs))


def sample(chance: random.Random) -> tuple[Need, ...]:
    chosen = chance.sample(range(len(RATES) - 1), chance.randint(1, 3))
    return tuple(Need(KEYS[at], RATES[at], chance.randint(1, max(2, RATES[at].units // 4))) for at in chosen)


@pytest.mark.parametrize("seed", range(6))
async def test_parity(valkey: Connection, seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(valkey)
    held: list[tuple[Need, Claim]] = []
    outcomes = set()
    for _ in range(300):
        pair.clock.now_us += chance.choice((0, 1, 1_000, 1_000_000, 20_000_000, 90_000_000))
        action = chance.random()
        if action < 0.5:
            needs = sample(chance)
            claims = await pair.take(needs)
            held += zip(needs, claims, strict=False)
            outcomes.add(bool(claims))
        elif action < 0.6:
            needs = sample(chance)
            reply = await pair.decide(Request(asks=asks(*needs), forced=True))
            expected = await pair.memory.extend(needs)
            claims = tuple(answer.claim(need.units) for answer, need in zip(reply.answers, needs, strict=True))
            assert [claim[:3] for claim in claims] == [claim[:3] for claim in expected]
            held += zip(needs, claims, strict=True)
        elif held:
            corrections = []
            for _ in range(min(len(held), chance.randint(1, 5))):
                need, claim = held.pop(chance.randrange(len(held)))
                used = chance.choice((0, claim.units // 2, claim.units, claim.units * 2))
                corrections.append(Correction(need.key, need.rate, claim, used))
            await pair.decide(Request(corrections))
            await pair.memory.settle(corrections)
    assert outcomes == {True, False}


async def test_all_or_nothing(valkey: Connection) -> None:
    pair = Pair(valkey)
    plenty, little = Need(KEYS[1], RATES[1], 5), Need(KEYS[0], RATES[0], 2)
    assert await pair.take((plenty, little))
    assert not await pair.take((plenty, little))
    reply = await pair.decide(Request(asks=asks(plenty)))
    assert reply.answers[0].bucket().remaining(RATES[1], pair.clock()) == 495


async def test_a_limit_of_nothing_lets_nothing_through(valkey: Connection) -> None:
    assert not await Pair(valkey).take((Need(KEYS[4], RATES[4], 1),))


async def test_corrections_are_made_before_the_decision(valkey: Connection) -> None:
    pair = Pair(valkey)
    need = Need(KEYS[0], RATES[0], 3)
    [claim] = await pair.take((need,))
    reply = await pair.decide(Request((Correction(need.key, need.rate, claim, 0),), asks(need)))
    assert reply.fits


NEED = Need(KEYS[1], RATES[1], 100)
UNIT_NS = RATES[1].interval_ns
NOTHING = NEED._replace(units=0)


async def lease(pair: Pair, ask: Ask, holder: int = 7) -> Reply:
    return await pair.decide(Request(asks=(ask,), share=0.1, holder=holder, lease_us=1_000_000))


async def test_a_lease_is_a_share_of_what_is_left_and_out_of_others_reach(valkey: Connection) -> None:
    pair = Pair(valkey)
    reply = await lease(pair, Ask(NEED, wanted=1_000))
    assert (reply.answers[0].leased, reply.answers[0].held_ns) == (40, 40 * UNIT_NS)
    other = await lease(pair, Ask(NEED, wanted=10), holder=8)
    assert (other.answers[0].leased, other.answers[0].held_ns) == (10, 50 * UNIT_NS)
    assert not (await lease(pair, Ask(NEED._replace(units=251)), holder=9)).fits
    assert (await lease(pair, Ask(NEED._replace(units=250)), holder=9)).fits


async def test_of_a_lease_only_what_was_handed_out_is_taken(valkey: Connection) -> None:
    pair = Pair(valkey)
    await lease(pair, Ask(NEED, wanted=40))
    reply = await lease(pair, Ask(NOTHING, handed_out_ns=10 * UNIT_NS))
    assert (reply.answers[0].offset_ns, reply.answers[0].leased) == (110 * UNIT_NS, 30)
    reply = await lease(pair, Ask(NOTHING, wanted=20, handed_out_ns=5 * UNIT_NS))
    assert (reply.answers[0].offset_ns, reply.answers[0].leased) == (115 * UNIT_NS, 25)
    reply = await lease(pair, Ask(NOTHING, wanted=20, handed_out_ns=5 * UNIT_NS, keep=False))
    assert (reply.answers[0].offset_ns, reply.answers[0].leased) == (120 * UNIT_NS, 20)
    reply = await lease(pair, Ask(NOTHING, handed_out_ns=1 * UNIT_NS, keep=False))
    assert (reply.answers[0].offset_ns, reply.answers[0].held_ns) == (121 * UNIT_NS, 0)


async def test_a_lease_of_a_gateway_that_died_is_charged_in_full_and_refills(valkey: Connection) -> None:
    pair = Pair(valkey)
    await lease(pair, Ask(NOTHING, wanted=40))
    pair.clock.now_us += 999_999
    assert (await lease(pair, Ask(NOTHING), holder=8)).answers[0].held_ns == 40 * UNIT_NS
    pair.clock.now_us += 1
    for _ in range(2):
        # Whoever comes late finds nothing to take again.
        reply = await lease(pair, Ask(NOTHING, handed_out_ns=10 * UNIT_NS))
        assert (reply.answers[0].offset_ns, reply.answers[0].held_ns) == (40 * UNIT_NS, 0)
    pair.clock.now_us += 40 * UNIT_NS // 1000
    assert (await lease(pair, Ask(NEED._replace(units=500)))).fits


async def test_a_clock_that_steps_back_refills_nothing_and_gives_nothing_twice(valkey: Connection) -> None:
    pair = Pair(valkey)
    need = Need(KEYS[1], RATES[1], 500)
    first = await pair.decide(Request(asks=asks(need)))
    pair.clock.now_us -= 5_000_000
    again = await pair.decide(Request(asks=asks(need)))
    assert not again.fits
    assert again.answers[0].offset_ns == 500 * RATES[1].interval_ns
    # The bucket's own time stood still and goes on from there, once something has been written.
    await pair.decide(Request(asks=asks(need._replace(units=1)), forced=True))
    pair.clock.now_us += 6_000_000
    later = await pair.decide(Request(asks=asks(need)))
    assert later.answers[0].now_ns == first.answers[0].now_ns + 6_000_000_000
    assert later.answers[0].offset_ns == 501 * RATES[1].interval_ns - 6_000_000_000


async def test_a_claim_on_a_forgotten_bucket_gives_nothing_back(valkey: Connection) -> None:
    pair = Pair(valkey)
    need = Need(KEYS[1], RATES[1], 500)
    reply = await pair.decide(Request(asks=asks(need)))
    claim = reply.answers[0].claim(500)
    await valkey.call("FLUSHALL")
    pair.clock.now_us += 1
    await pair.decide(Request(asks=asks(need)))
    reply = await pair.decide(Request((Correction(need.key, need.rate, claim, 0),), asks(need._replace(units=0))))
    assert reply.answers[0].offset_ns == 500 * RATES[1].interval_ns


async def test_a_debt_is_bounded(valkey: Connection) -> None:
    pair = Pair(valkey)
    need = Need(KEYS[3], RATES[3], 10_000_000)
    for _ in range(3):
        reply = await pair.decide(Request(asks=asks(need), forced=True))
    assert reply.answers[0].offset_ns == 2**52


async def test_real_time_and_expiry(valkey: Connection) -> None:
    function = Function()
    need = Need(KEYS[0], RATES[0], 1)
    reply = await function.decide(valkey, Request(asks=asks(need)))
    seconds, micros = await valkey.call("TIME")
    assert 0 <= int(seconds) * 1_000_000 + int(micros) - reply.answers[0].now_ns // 1000 < 5_000_000
    [key] = await valkey.call("KEYS", "*")
    assert key == b"modelplane:limit:{org-1}:organization:org-1:m:0"
    assert 70_000 < await valkey.call("PTTL", key) <= 80_000


async def test_a_refusal_writes_nothing(valkey: Connection) -> None:
    await Pair(valkey).take((Need(KEYS[1], RATES[1], 1), Need(KEYS[0], RATES[0], 4)))
    assert await valkey.call("DBSIZE") == 0
