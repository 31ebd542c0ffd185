"""Usage tiers: the thresholds to the nanodollar and the second; more money or more time never lowers a tier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tenants.tiers import DAY_S, HIGHEST, NANODOLLARS, THRESHOLDS, next_at, usage_tier

FIRST_S = 1_700_000_000
# Around the thresholds rather than anywhere.
PAID = st.one_of(
    st.sampled_from([threshold.paid_nanodollars for threshold in THRESHOLDS]).flatmap(
        lambda paid: st.integers(paid - 2, paid + 2)
    ),
    st.integers(-(2**63), 2**63 - 1),
)
AGES = st.one_of(
    st.sampled_from([threshold.age_s for threshold in THRESHOLDS]).flatmap(lambda age: st.integers(age - 2, age + 2)),
    st.integers(-DAY_S, 400 * DAY_S),
)


@pytest.mark.parametrize(("tier", "dollars", "days"), [(1, 5, 0), (2, 50, 7), (3, 100, 7), (4, 250, 14), (5, 1000, 30)])
def test_a_tier_begins_exactly_at_its_threshold(tier: int, dollars: int, days: int) -> None:
    paid, now_s = dollars * NANODOLLARS, FIRST_S + days * DAY_S
    assert usage_tier(paid, FIRST_S, now_s) == tier
    assert usage_tier(paid - 1, FIRST_S, now_s) < tier
    if days:
        assert usage_tier(paid, FIRST_S, now_s - 1) < tier


def test_who_paid_nothing_is_free_for_ever() -> None:
    assert usage_tier(0, 0, 2**40) == 0
    assert next_at(0, 0, 2**40) is None


def test_much_money_waits_for_its_age() -> None:
    paid = 5000 * NANODOLLARS
    assert [usage_tier(paid, FIRST_S, FIRST_S + day * DAY_S) for day in (0, 6, 7, 13, 14, 29, 30)] == [
        *(1, 1, 3, 3, 4, 4, 5)
    ]


def test_a_refund_lowers_a_tier() -> None:
    now_s = FIRST_S + 30 * DAY_S
    assert usage_tier(1000 * NANODOLLARS, FIRST_S, now_s) == HIGHEST
    assert usage_tier(1000 * NANODOLLARS - 1, FIRST_S, now_s) == HIGHEST - 1
    assert usage_tier(-1, FIRST_S, now_s) == 0


@given(paid=PAID, more=st.integers(0, 2000 * NANODOLLARS), age_s=AGES, longer_s=st.integers(0, 40 * DAY_S))
def test_more_of_either_never_lowers_it(paid: int, more: int, age_s: int, longer_s: int) -> None:
    tier = usage_tier(paid, FIRST_S, FIRST_S + age_s)
    assert 0 <= tier <= usage_tier(paid + more, FIRST_S, FIRST_S + age_s) <= HIGHEST
    assert tier <= usage_tier(paid, FIRST_S, FIRST_S + age_s + longer_s)


@given(paid=PAID, age_s=AGES)
def test_a_tier_is_the_highest_whose_threshold_is_met(paid: int, age_s: int) -> None:
    met = [
        tier
        for tier, threshold in enumerate(THRESHOLDS, start=1)
        if paid >= threshold.paid_nanodollars and max(0, age_s) >= threshold.age_s
    ]
    assert usage_tier(paid, FIRST_S, FIRST_S + age_s) == max(met, default=0)


@given(paid=PAID, age_s=AGES)
def test_age_alone_raises_it_then_and_not_before(paid: int, age_s: int) -> None:
    now_s = FIRST_S + age_s
    tier = usage_tier(paid, FIRST_S, now_s)
    at = next_at(paid, FIRST_S, now_s)
    if at is None:
        assert usage_tier(paid, FIRST_S, now_s + 1000 * DAY_S) == tier
    else:
        assert at > now_s
        assert usage_tier(paid, FIRST_S, at - 1) == tier < usage_tier(paid, FIRST_S, at)
