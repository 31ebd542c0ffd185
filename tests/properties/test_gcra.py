"""The arithmetic of one bucket: what it admits, what it promises, and what it gives back."""

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ratelimit.gcra import Bucket, Claim, Rate, per_window

START_NS = 1_000_000
rates = st.builds(Rate, units=st.integers(1, 50), interval_ns=st.integers(1, 40))


class Step(NamedTuple):
    """Wait, then take what fits of `take`, or settle one of the open claims to a share of what it holds."""

    wait_ns: int
    take: int
    settle: int | None
    share: float
    forget: bool


small_rates = st.builds(Rate, units=st.integers(1, 12), interval_ns=st.integers(1, 4))
steps = st.lists(
    st.builds(
        Step,
        wait_ns=st.integers(0, 12),
        take=st.integers(1, 12),
        settle=st.none() | st.integers(0, 5),
        share=st.sampled_from([0, 0.5, 1]),
        forget=st.booleans(),
    ),
    max_size=30,
)


class Used(NamedTuple):
    """A bucket with a past, perhaps in debt, and the time now."""

    rate: Rate
    bucket: Bucket
    now_ns: int


@st.composite
def used_buckets(draw: st.DrawFn) -> Used:
    rate, bucket, now_ns = draw(rates), Bucket(), START_NS
    for wait_ns, units in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 60)), max_size=8)):
        now_ns += wait_ns
        bucket.take(rate, units, now_ns)
    return Used(rate, bucket, now_ns + draw(st.integers(0, 400)))


class Taken(NamedTuple):
    at_ns: int
    units: int


def play(rate: Rate, script: list[Step]) -> list[Taken]:
    """What was really used, at the times at which it was taken. A bucket that is full is forgotten at times."""
    bucket, now_ns = Bucket(START_NS), START_NS
    open_claims: list[Claim] = []
    used: list[Taken] = []
    for step in script:
        now_ns += step.wait_ns
        if step.forget and not bucket.until_full_ns(now_ns):
            bucket = Bucket(now_ns)
        if step.settle is not None and open_claims:
            claim = open_claims.pop(step.settle % len(open_claims))
            units = int(claim.units * step.share)
            bucket.settle(rate, claim, units, now_ns)
            used.append(Taken(claim.taken_ns, units))
        elif units := min(step.take, bucket.remaining(rate, now_ns)):
            open_claims.append(bucket.take(rate, units, now_ns))
    return used + [Taken(claim.taken_ns, claim.units) for claim in open_claims]


@settings(max_examples=500)
@given(small_rates, steps)
def test_no_window_holds_more_than_the_burst_and_what_refills_in_it(rate: Rate, script: list[Step]) -> None:
    used = sorted(play(rate, script))
    for index, first in enumerate(used):
        inside = 0
        for last in used[index:]:
            inside += last.units
            assert inside * rate.interval_ns <= rate.units * rate.interval_ns + last.at_ns - first.at_ns


@given(used_buckets(), st.integers(0, 60))
def test_the_wait_is_enough_and_no_longer_than_needed(used: Used, units: int) -> None:
    rate, bucket, now_ns = used
    wait_ns = bucket.wait_ns(rate, units, now_ns)
    if units > rate.units:
        assert wait_ns is None
        return
    assert wait_ns is not None
    assert bucket.wait_ns(rate, units, now_ns + wait_ns) == 0
    assert wait_ns == 0 or bucket.wait_ns(rate, units, now_ns + wait_ns - 1) == 1


@given(used_buckets())
def test_remaining_is_what_fits_and_not_one_more(used: Used) -> None:
    rate, bucket, now_ns = used
    remaining = bucket.remaining(rate, now_ns)
    assert 0 <= remaining <= rate.units
    assert remaining == 0 or bucket.wait_ns(rate, remaining, now_ns) == 0
    assert bucket.wait_ns(rate, remaining + 1, now_ns) != 0


@given(used_buckets(), st.integers(0, 60))
def test_a_unit_comes_back_every_interval_until_the_bucket_is_full(used: Used, intervals: int) -> None:
    rate, bucket, now_ns = used
    later_ns = now_ns + intervals * rate.interval_ns
    if bucket.wait_ns(rate, 0, now_ns) == 0:
        assert bucket.remaining(rate, later_ns) == min(rate.units, bucket.remaining(rate, now_ns) + intervals)
    full_ns = now_ns + bucket.until_full_ns(now_ns)
    assert bucket.remaining(rate, full_ns) == rate.units
    assert bucket.until_full_ns(now_ns) == 0 or bucket.remaining(rate, full_ns - 1) < rate.units


@given(used_buckets(), st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000))
def test_settling_leaves_what_taking_the_right_amount_would_have_left(
    used: Used, units: int, really: int, wait_ns: int
) -> None:
    """As long as nobody else takes meanwhile; what was underestimated is charged when it becomes known."""
    rate, bucket, now_ns = used
    exact = Bucket(full_ns=bucket.full_ns)
    claim = bucket.take(rate, units, now_ns)
    exact.take(rate, min(units, really), now_ns)
    later_ns = now_ns + wait_ns
    bucket.settle(rate, claim, really, later_ns)
    exact.take(rate, max(0, really - units), later_ns)
    assert bucket.until_full_ns(later_ns) == exact.until_full_ns(later_ns)


@given(used_buckets(), st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000), st.integers(0, 60))
def test_a_settlement_gives_back_no_more_than_was_taken(
    used: Used, units: int, really: int, wait_ns: int, others: int
) -> None:
    rate, bucket, now_ns = used
    claim = bucket.take(rate, units, now_ns)
    bucket.take(rate, others, now_ns + wait_ns // 2)
    later_ns = now_ns + wait_ns
    before_ns = bucket.until_full_ns(later_ns)
    bucket.settle(rate, claim, min(units, really), later_ns)
    back_ns = before_ns - bucket.until_full_ns(later_ns)
    assert 0 <= back_ns <= (units - min(units, really)) * rate.interval_ns


@given(rates, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=10), st.data())
def test_before_any_of_it_refills_all_that_was_not_used_comes_back(
    rate: Rate, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever else is open, and in whatever order they are settled."""
    bucket = Bucket()
    bucket.take(rate, 10_000, START_NS)
    before_ns = bucket.until_full_ns(START_NS)
    claims = [(bucket.take(rate, units, START_NS), min(units, really)) for units, really in sizes]
    for claim, really in data.draw(st.permutations(claims)):
        bucket.settle(rate, claim, really, START_NS)
    used = sum(really for _, really in claims)
    assert bucket.until_full_ns(START_NS) == before_ns + used * rate.interval_ns


@given(used_buckets(), rates)
def test_a_new_limit_finds_the_bucket_as_full_as_it_was(used: Used, changed: Rate) -> None:
    """Up to a unit: a share of the old window is the same share of a new one of the same length."""
    _, bucket, now_ns = used
    whole_ns = 1_000_000
    before, after = per_window(10, whole_ns), per_window(changed.units, whole_ns)
    share, new_share = (bucket.remaining(rate, now_ns) / rate.units for rate in (before, after))
    assert abs(share - new_share) <= 1 / before.units + 1 / after.units


@given(st.integers(0, 10**9), st.integers(1, 10**12))
def test_a_rate_never_refills_more_than_its_units_in_a_window(units: int, window_ns: int) -> None:
    rate = per_window(units, window_ns)
    assert rate.units == units and rate.interval_ns >= 1
    assert units == 0 or window_ns <= rate.units * rate.interval_ns < window_ns + units


def test_a_limit_of_nothing_admits_nothing() -> None:
    bucket, rate = Bucket(), per_window(0, 60)
    assert bucket.remaining(rate, START_NS) == 0
    assert bucket.wait_ns(rate, 1, START_NS) is None


def test_reserving_much_and_using_nothing_saves_up_no_burst() -> None:
    bucket, rate = Bucket(), Rate(100, 1)
    held = [bucket.take(rate, 100, START_NS + window * 100) for window in range(5)]
    now_ns = START_NS + 500
    bucket.take(rate, 100, now_ns)
    for claim in held:
        bucket.settle(rate, claim, 0, now_ns)
    assert bucket.remaining(rate, now_ns) == 0


def test_a_claim_that_moved_forward_is_given_back_from_its_new_place() -> None:
    bucket, rate = Bucket(), Rate(200, 1)
    first, second = bucket.take(rate, 100, START_NS), bucket.take(rate, 10, START_NS)
    bucket.settle(rate, first, 0, START_NS + 50)
    bucket.take(rate, 5, START_NS + 59)
    # The second has refilled in the time that the first no longer needed.
    bucket.settle(rate, second, 0, START_NS + 61)
    assert bucket.remaining(rate, START_NS + 61) == 196


def test_a_claim_on_a_forgotten_bucket_has_refilled() -> None:
    bucket, rate = Bucket(START_NS), Rate(100, 1)
    first, second = bucket.take(rate, 50, START_NS), bucket.take(rate, 50, START_NS)
    bucket.settle(rate, first, 0, START_NS)
    now_ns = START_NS + 50
    assert not bucket.until_full_ns(now_ns)
    bucket = Bucket(now_ns)
    bucket.take(rate, 100, now_ns)
    # By its own times the second would still be waiting: it knows nothing of the move.
    bucket.settle(rate, second, 0, now_ns)
    assert bucket.remaining(rate, now_ns) == 0
