"""Usage tiers: which one an organisation has earned. Pure; times are whole seconds of the epoch.

A tier is a matter of what was paid in all and of how long ago the first payment was. A refund lowers what was paid
and so may lower the tier; the first payment's time stays.
"""

from collections.abc import Sequence
from typing import NamedTuple

NANODOLLARS = 10**9
DAY_S = 24 * 3600


class Threshold(NamedTuple):
    """What an organisation needs for a tier: both, or more."""

    paid_nanodollars: int
    age_s: int


# Of the tiers 1, 2, … in this order; neither column falls. Below the first an organisation is in tier 0, free.
THRESHOLDS: Sequence[Threshold] = (
    Threshold(5 * NANODOLLARS, 0),
    Threshold(50 * NANODOLLARS, 7 * DAY_S),
    Threshold(100 * NANODOLLARS, 7 * DAY_S),
    Threshold(250 * NANODOLLARS, 14 * DAY_S),
    Threshold(1000 * NANODOLLARS, 30 * DAY_S),
)
HIGHEST = len(THRESHOLDS)


def usage_tier(paid_nanodollars: int, first_paid_at_s: int, now_s: int) -> int:
    """0 to HIGHEST. A first payment in the future, by a clock that is ahead of this one, counts as just made."""
    age_s = max(0, now_s - first_paid_at_s)
    return sum(paid_nanodollars >= least.paid_nanodollars and age_s >= least.age_s for least in THRESHOLDS)


def next_at(paid_nanodollars: int, first_paid_at_s: int, now_s: int) -> int | None:
    """When the tier rises without a further payment; None when that will never be."""
    tier = usage_tier(paid_nanodollars, first_paid_at_s, now_s)
    if tier == HIGHEST or paid_nanodollars < THRESHOLDS[tier].paid_nanodollars:
        return None
    return first_paid_at_s + THRESHOLDS[tier].age_s
