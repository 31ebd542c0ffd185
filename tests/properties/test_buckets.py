"""Decisions over several buckets together: all or nothing, never over a limit, and waits that are kept."""

from collections.abc import Awaitable, Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ratelimit.buckets import MemoryBuckets, Need, Short, Taken, level
from services.ratelimit.gcra import Bucket, Rate
from tests.fakes.bucket_scripts import KEYS, MILLISECOND_NS, RATES, Seen, Step, finish, levels, play, scripts

START_NS = 1_700_000_000_000_000_000


class Clock:
    """Time that passes when a script says so."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns

    async def wait(self, duration_ms: int) -> None:
        self.now_ns += duration_ms * MILLISECOND_NS


def told(script: list[Step], swept: bool = False) -> list[Seen]:
    clock = Clock()
    buckets = MemoryBuckets(clock)
    wait: Callable[[int], Awaitable[None]] = clock.wait

    async def sweep_and_wait(duration_ms: int) -> None:
        await clock.wait(duration_ms)
        buckets.sweep()

    return finish(play(buckets, script, sweep_and_wait if swept else wait))


@settings(max_examples=300)
@given(scripts(("take", "settle"), most_percent=100))
def test_no_window_of_any_bucket_holds_more_than_its_limit_and_what_refills(script: list[Step]) -> None:
    story = told(script)
    percent = {seen.settled: seen.step.percent for seen in story if seen.settled is not None}
    for position, key in enumerate(KEYS):
        rate = RATES[key]
        used = [
            (seen.at_ms, seen.step.units[position] * percent.get(index, 100) // 100)
            for index, seen in enumerate(story)
            if seen.answer == "taken"
        ]
        for index, (first_ms, _) in enumerate(used):
            inside = 0
            for last_ms, units in used[index:]:
                inside += units
                window_ns = (last_ms - first_ms) * MILLISECOND_NS
                assert inside * rate.interval_ns <= rate.units * rate.interval_ns + window_ns


@settings(max_examples=200)
@given(scripts())
def test_a_decision_takes_from_every_bucket_or_from_none(script: list[Step]) -> None:
    for seen in told(script):
        fits = all(level.remaining >= units for level, units in zip(seen.before, seen.step.units, strict=True) if units)
        if seen.answer == "short":
            assert seen.after == seen.before
            assert not fits
        elif seen.answer == "taken":
            assert fits
            for rate, units, before, after in zip(
                RATES.values(), seen.step.units, seen.before, seen.after, strict=True
            ):
                assert after.until_full_ns == before.until_full_ns + units * rate.interval_ns


@settings(max_examples=200)
@given(scripts(), st.tuples(*[st.integers(0, 70)] * 4))
def test_whoever_waits_as_told_is_admitted_and_not_a_moment_before(script: list[Step], units: tuple[int, ...]) -> None:
    clock = Clock()
    buckets = MemoryBuckets(clock)
    finish(play(buckets, script, clock.wait))
    needs = [Need(key, RATES[key], wanted) for key, wanted in zip(KEYS, units, strict=True) if wanted]
    decision = finish(buckets.take(needs))
    if isinstance(decision, Taken):
        return
    need = needs[decision.index]
    if decision.wait_ns is None:
        assert need.units > need.rate.units
        return
    assert decision.wait_ns > 0
    clock.now_ns += decision.wait_ns - 1
    assert isinstance(finish(buckets.take(needs)), Short)
    clock.now_ns += 1
    assert isinstance(finish(buckets.take(needs)), Taken)


@settings(max_examples=200)
@given(scripts())
def test_forgetting_full_buckets_changes_nothing(script: list[Step]) -> None:
    assert told(script) == told(script, swept=True)


@given(scripts(("take", "extend")), st.integers(0, 500))
def test_a_restart_finds_the_buckets_as_time_has_left_them(script: list[Step], down_ms: int) -> None:
    clock = Clock()
    before, after = MemoryBuckets(clock), MemoryBuckets(clock)
    finish(play(before, script, clock.wait))
    states = list(before.states())
    finish(clock.wait(down_ms))
    for state in states:
        after.restore(state, down_ms * MILLISECOND_NS)
    assert finish(levels(after)) == finish(levels(before))


@given(st.integers(0, 50), st.integers(1, 40), st.integers(0, 3000))
def test_a_level_is_what_the_bucket_says(units: int, interval_ns: int, until_full_ns: int) -> None:
    rate, bucket = Rate(units, interval_ns), Bucket(full_ns=START_NS + until_full_ns)
    assert level(rate, until_full_ns) == (units, bucket.remaining(rate, START_NS), until_full_ns)
    assert bucket.until_full_ns(START_NS) == until_full_ns


@given(st.integers(2, 8), st.integers(1, 20))
def test_refill_is_fair_to_whoever_asks_steadily(askers: int, rounds: int) -> None:
    """Nothing is kept for anybody: with an empty bucket, those who ask in turn get every unit that comes back."""
    clock = Clock()
    buckets = MemoryBuckets(clock)
    key, rate = KEYS[0], RATES[KEYS[0]]
    finish(buckets.take([Need(key, rate, rate.units)]))
    got = [0] * askers
    for turn in range(askers * rounds):
        clock.now_ns += rate.interval_ns
        got[turn % askers] += isinstance(finish(buckets.take([Need(key, rate, 1)])), Taken)
    assert got == [rounds] * askers


def test_the_need_that_waits_longest_is_named_and_what_never_fits_before_all() -> None:
    buckets = MemoryBuckets(Clock())
    needs = [Need(key, rate, rate.units) for key, rate in RATES.items()]
    finish(buckets.take(needs))
    short = finish(buckets.take([Need(key, rate, 1) for key, rate in RATES.items()]))
    assert isinstance(short, Short)
    assert (needs[short.index].key, short.wait_ns) == (KEYS[2], 60 * MILLISECOND_NS)
    short = finish(buckets.take([*needs[:3], Need(KEYS[3], RATES[KEYS[3]], 41)]))
    assert isinstance(short, Short)
    assert (short.index, short.wait_ns) == (3, None)
