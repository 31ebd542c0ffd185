"""A bucket that refills steadily, kept as one point in time: the generic cell rate algorithm (GCRA).

A bucket holds `units` and regains one every `interval_ns`; its whole state is the time at which it will be full
again. Taking units moves that time into the future, and a take is admitted when it stays within one window.

What it keeps true, for units taken by `take` and counted at the time of the take: no window of time, however
placed, holds more than `units + its length / interval_ns` of them. Giving back must not break that. Units that
were reserved and have since refilled are gone: handing them back too would let a client that reserves much and
uses nothing save up bursts. So every take is a stretch of time with a place in the queue of refilling, a `Claim`,
and only the part of it that still lies in the future is given back.

Times are integers in nanoseconds from a clock that never goes backwards; it is an argument everywhere.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Rate(NamedTuple):
    """How much a bucket holds and how fast it refills."""

    units: int
    """What a full bucket holds: the burst. At least 1."""

    interval_ns: int
    """Time in which one unit comes back."""


def per_window(units: int, window_ns: int) -> Rate:
    """The rate that refills `units` (at least 1) in `window_ns`, or a hair later: the interval is rounded up."""
    return Rate(units, -(-window_ns // units))


class Claim(NamedTuple):
    """What one take occupies: its place in the bucket's queue of refilling."""

    units: int
    taken_ns: int
    starts_ns: int
    given_back_ns: int


@dataclass(slots=True)
class Bucket:
    """One bucket: its rate and its state. New ones are full."""

    rate: Rate

    full_ns: int = 0
    """The time at which the bucket is full, if nothing more is taken."""

    given_back_ns: int = 0
    """All refilling time given back so far: how far claims may have moved forward since they were made."""

    def until_full_ns(self, now_ns: int) -> int:
        return self.full_ns - now_ns if self.full_ns > now_ns else 0

    def remaining(self, now_ns: int) -> int:
        """Whole units that can be taken now; 0 also when the bucket is in debt."""
        units, interval_ns = self.rate
        if self.full_ns <= now_ns:
            return units
        return max(0, units + (now_ns - self.full_ns) // interval_ns)

    def wait_ns(self, units: int, now_ns: int) -> int | None:
        """Time until `units` fit if nothing else is taken: 0 when they fit now, None when they never will."""
        most, interval_ns = self.rate
        if units > most:
            return None
        fits_ns = self.full_ns - (most - units) * interval_ns
        return fits_ns - now_ns if fits_ns > now_ns else 0

    def take(self, units: int, now_ns: int) -> Claim:
        """Takes `units`, even beyond what is there: ask `wait_ns` before."""
        starts_ns = self.full_ns if self.full_ns > now_ns else now_ns
        self.full_ns = starts_ns + units * self.rate.interval_ns
        return Claim(units, now_ns, starts_ns, self.given_back_ns)

    def settle(self, claim: Claim, used: int, now_ns: int) -> None:
        """Corrects a claim to the units `used`. More than was claimed is charged now and may leave a debt."""
        if used >= claim.units:
            self.take(used - claim.units, now_ns)
            return
        interval_ns = self.rate.interval_ns
        moved_ns = self.given_back_ns - claim.given_back_ns
        starts_ns = max(claim.taken_ns, claim.starts_ns - moved_ns)
        ends_ns = starts_ns + claim.units * interval_ns
        unused_ns = (claim.units - used) * interval_ns
        back_ns = max(0, min(unused_ns, ends_ns - max(starts_ns, now_ns)))
        self.full_ns -= back_ns
        self.given_back_ns += back_ns
