"""A bucket that refills steadily, kept as one point in time: the generic cell rate algorithm (GCRA).

A bucket holds `units` and regains one every `interval_ns`; its state is the time at which it will be full again.
Taking units moves that time into the future, and a take is admitted when it stays within one window. The rate is
an argument: a limit may change at any time, and a bucket that was half empty then is half empty under the new one.

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
    """What a full bucket holds: the burst. 0 lets nothing through."""

    interval_ns: int
    """Time in which one unit comes back. At least 1."""


def per_window(units: int, window_ns: int) -> Rate:
    """The rate that refills `units` (at least 0) in `window_ns`, or a hair later: the interval is rounded up."""
    return Rate(units, -(-window_ns // (units or 1)))


class Claim(NamedTuple):
    """What one take occupies: its place in the bucket's queue of refilling."""

    units: int
    taken_ns: int
    starts_ns: int
    given_back_ns: int
    """All that the bucket had been given back when this was taken."""


@dataclass(slots=True)
class Bucket:
    """The state of one bucket. A new one is full, and a full one may be forgotten: that changes nothing."""

    born_ns: int = 0
    """When it was made. Claims from before are on a forgotten bucket, which was full: they have refilled."""

    full_ns: int = 0
    """The time at which the bucket is full, if nothing more is taken."""

    given_back_ns: int = 0
    """All refilling time given back so far: how far claims may have moved forward since they were made."""

    def until_full_ns(self, now_ns: int) -> int:
        return self.full_ns - now_ns if self.full_ns > now_ns else 0

    def remaining(self, rate: Rate, now_ns: int) -> int:
        """Whole units that can be taken now; 0 also when the bucket is in debt."""
        units, interval_ns = rate
        if self.full_ns <= now_ns:
            return units
        return max(0, units + (now_ns - self.full_ns) // interval_ns)

    def wait_ns(self, rate: Rate, units: int, now_ns: int) -> int | None:
        """Time until `units` fit if nothing else is taken: 0 when they fit now, None when they never will."""
        most, interval_ns = rate
        if units > most:
            return None
        fits_ns = self.full_ns - (most - units) * interval_ns
        return fits_ns - now_ns if fits_ns > now_ns else 0

    def take(self, rate: Rate, units: int, now_ns: int) -> Claim:
        """Takes `units`, even beyond what is there: ask `wait_ns` before."""
        starts_ns = self.full_ns if self.full_ns > now_ns else now_ns
        self.full_ns = starts_ns + units * rate.interval_ns
        # Made as the tuple that it is: a named tuple's own constructor takes twice as long.
        return tuple.__new__(Claim, (units, now_ns, starts_ns, self.given_back_ns))

    def settle(self, rate: Rate, claim: Claim, used: int, now_ns: int) -> None:
        """Corrects a claim to the units `used`. More than was claimed is charged now and may leave a debt.

        The rate is the one that the claim was taken at: a claim is a stretch of time, and that is how long.
        """
        if used >= claim.units:
            self.take(rate, used - claim.units, now_ns)
            return
        if claim.taken_ns < self.born_ns:
            return
        interval_ns = rate.interval_ns
        moved_ns = self.given_back_ns - claim.given_back_ns
        starts_ns = max(claim.taken_ns, claim.starts_ns - moved_ns)
        ends_ns = starts_ns + claim.units * interval_ns
        unused_ns = (claim.units - used) * interval_ns
        back_ns = max(0, min(unused_ns, ends_ns - max(starts_ns, now_ns)))
        self.full_ns -= back_ns
        self.given_back_ns += back_ns
