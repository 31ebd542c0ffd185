"""Quota that a gateway holds in advance, and how much of it to ask for.

Units on a lease are out of everybody else's reach, so the sum of all that is granted never exceeds the limit. They
are not taken yet: Valkey is told in the next call what was handed out, takes that, and forgets the rest. A lease
that it hears nothing more of is charged in full, so a gateway that was killed loses what it held and gains nothing.

Where in the bucket's queue of refilling a unit will stand is not known when it is handed out, but it cannot be
before what was there when the lease was given, less what is given back from then on. That place is in its claim.

Times are in nanoseconds of a clock of this gateway that never goes backwards; claims carry the bucket's own time.
"""

from dataclasses import dataclass

from services.ratelimit.gcra import Claim, Rate

# Less than this many decisions in a lease's time are too few to hold anything in advance for.
_BUSY = 3


class Lease:
    """What one gateway holds of one bucket."""

    __slots__ = ("asked_ns", "handed_out", "holder", "left", "low", "place", "rate")

    def __init__(self, rate: Rate, place: Claim, left: int, holder: int, asked_ns: int) -> None:
        self.rate = rate
        self.holder = holder
        self.handed_out = 0
        """Units that Valkey has not been told of."""

        self.renew(place, left, asked_ns, told=0)

    def renew(self, place: Claim, left: int, asked_ns: int, told: int) -> None:
        """Valkey has taken what it was told of, and `left` units may be handed out that it had not been told of."""
        self.handed_out -= told
        self.place = place
        """A claim on nothing, at the end of the queue when the lease was given."""

        self.left = left - self.handed_out
        """Units that can still be handed out."""

        self.low = self.left // 3
        """When fewer are left, it is time to ask for more."""

        self.asked_ns = asked_ns
        """When it was asked for; it was given then or later."""

    def hand_out(self, units: int) -> Claim:
        """Some of what is left."""
        _, taken_ns, starts_ns, given_back_ns = self.place
        claim = Claim(units, taken_ns, starts_ns + self.handed_out * self.rate.interval_ns, given_back_ns)
        self.left -= units
        self.handed_out += units
        return claim

    @property
    def handed_out_ns(self) -> int:
        """The refilling time of what Valkey has not been told of."""
        return self.handed_out * self.rate.interval_ns


@dataclass(slots=True)
class Demand:
    """What was asked of one bucket lately: in the present span of a lease's time and in the one before."""

    span_ns: int
    started_ns: int = 0
    units: int = 0
    calls: int = 0
    units_before: int = 0
    calls_before: int = 0

    def note(self, units: int, now_ns: int) -> None:
        """One decision that asked for `units`."""
        age_ns = now_ns - self.started_ns
        if age_ns >= self.span_ns:
            adjacent = age_ns < 2 * self.span_ns
            self.units_before, self.calls_before = (self.units, self.calls) if adjacent else (0, 0)
            self.started_ns, self.units, self.calls = now_ns, 0, 0
        self.units += units
        self.calls += 1

    def lease_units(self) -> int:
        """Units to hold: what is asked for in a lease's time; 0 when few ask."""
        if self.span_ns == 0 or max(self.calls, self.calls_before) < _BUSY:
            return 0
        return max(self.units, self.units_before)
