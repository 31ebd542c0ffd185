"""The arithmetic of a purse: what a process may still spend of somebody's money without asking anybody.

A purse is filled by a lease: money that nobody else may spend. Of it some is held for requests that run, some was
used and is not in the ledger's sums yet, and the rest is left. What is kept true, for every bound: spent this month +
all leases <= bound; so whatever is taken from what is left, or comes back to it, needs nobody's consent.

All amounts are whole nano-dollars. Pure: the caller keeps time and writes leases down.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

# A process leases at most this part of what is left under a bound, unless a request that waits needs more: the leases
# get smaller as the bound comes nearer, and all processes share what is left.
SHARE: Final = 8
# What is held for worst cases beyond what is expected is at most this part of what is free.
SPARE: Final = 8
# A purse has room for so many worst cases of its largest request ...
WORST_CASES: Final = 64
# ... and for so many times what is held: then worst cases of as many requests again can be held.
TIMES_HELD: Final = 8


class Purse:
    """Of one organisation or one project, in one process."""

    __slots__ = ("bounded", "excess", "held", "lease", "low", "pace", "pending", "read", "room", "undrained", "used")

    def __init__(self) -> None:
        # What this process has leased, and what it is about to have in addition.
        self.lease = 0
        self.pending = 0
        self.held = 0
        # The part of `held` that is for worst cases.
        self.excess = 0
        # Used by requests that ended, and not in the ledger's sums yet.
        self.undrained = 0
        # False: nothing bounds it, so it needs no lease.
        self.bounded = True
        # Whether the bounds were ever read, and what nobody had leased when they were.
        self.read = False
        self.room = 0
        # Used since the lease was sized, nano-dollars a second before, and the rest below which more is leased.
        self.used = 0
        self.pace = 0
        self.low = 0

    @property
    def left(self) -> int:
        """Below 0 when requests cost more than was held for them."""
        return self.lease - self.held - self.undrained

    @property
    def obligations(self) -> int:
        """What has to be leased whatever the bounds say."""
        return self.held + self.undrained

    @property
    def runs_low(self) -> bool:
        return self.bounded and self.lease - self.held - self.undrained < self.low

    def affords(self, amount: int) -> bool:
        return not self.bounded or amount <= self.lease - self.held - self.undrained

    def spares(self, amount: int, extra: int) -> bool:
        """Whether it affords `amount`, and `extra`, the worst case beyond it, keeps no others from what they need."""
        if not self.bounded:
            return True
        left = self.lease - self.held - self.undrained
        return amount + extra <= left and SPARE * (self.excess + extra) <= left + self.excess

    def is_short_of(self, amount: int) -> bool:
        """Whether there was not enough for `amount` anywhere when the bounds were read."""
        return self.bounded and self.read and amount > max(0, self.left) + self.room

    def take(self, amount: int, extra: int) -> None:
        self.held += amount
        self.excess += extra

    def settle(self, amount: int, extra: int, cost: int) -> None:
        """A request has ended, for which that was taken, and cost so much."""
        self.held -= amount
        self.excess -= extra
        self.undrained += cost
        self.used += cost

    def leased_after(self, drained: int) -> int:
        """What is leased when the ledger's sums have taken up so much of what was used."""
        return max(0, self.lease + self.pending - drained)

    def drain(self, amount: int) -> None:
        """The ledger's sums have taken up so much of what was used."""
        self.lease = max(0, self.lease - amount)
        self.undrained = max(0, self.undrained - amount)

    def resize(self, size: int, free: int) -> int:
        """Begins to have `size` left, of which `free` is under the bound, and gives what is leased for it.

        What is given up is given up now, before anybody else may have it; what is won counts from `settle_lease` on,
        when nobody else can.
        """
        lease = self.obligations + size
        self.room = max(0, free - size)
        self.low = size // 2
        self.read = True
        self.pending = max(0, lease - self.lease)
        self.lease = min(self.lease, lease)
        return lease

    def settle_lease(self, written: bool) -> None:
        if written:
            self.lease += self.pending
        self.pending = 0


class Need(NamedTuple):
    """What a request waits for: an amount out of an organisation's purse and out of a project's."""

    project_id: str
    amount: int


def admit(needs: Iterable[Need], free: int, free_of_projects: dict[str, int]) -> dict[str, int]:
    """Whom what is free suffices for, first come first served: sums by project, and of all under "".

    A project that is not in `free_of_projects` is not bounded.
    """
    sums = {"": 0}
    for project_id, amount in needs:
        of_project = sums.get(project_id, 0) + amount if project_id else 0
        if sums[""] + amount <= free and of_project <= free_of_projects.get(project_id, of_project):
            if project_id:
                sums[project_id] = of_project
            sums[""] += amount
    return sums


def pace(before: int, used: int, elapsed_s: float) -> int:
    """Nano-dollars a second, as used lately: up at once, down by halves."""
    return max(int(used / max(elapsed_s, 1.0)), before // 2)


def ahead(largest: int, held: int, soon: int) -> int:
    """What the requests to come may need: `largest` is the worst case of one, `held` what is held for those that run,
    `soon` what will be used at the pace of late."""
    return max(WORST_CASES * largest, TIMES_HELD * held, soon)


def size(free: int, needed: int, ahead: int) -> int:
    """What a purse should have left: what is `needed` now, and some for the requests to come.

    `free` is what would be left with all that nobody else has.
    """
    return max(0, min(free, max(needed, min(ahead, free // SHARE))))


class Bound(NamedTuple):
    """What may be spent, by what, and who is told so when it is used up."""

    name: str
    nanodollars: int


def tightest(bounds: Sequence[Bound]) -> Bound:
    return min(bounds, key=lambda bound: bound.nanodollars)
