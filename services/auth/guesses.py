"""How many unknown keys may be looked up, so that guessing costs those who have a key nothing.

Anybody can make a well-formed key, so what a key is shows only when its look-up ends: each takes from a budget when it
begins, and those of good keys give it back.

Keeps true: whoever guesses uses up the budget of the source that the guesses come from and of no other, also just after
a start, when no key has been seen yet; what all sources cost together is bounded, and so is what is remembered of them.
To remember good keys across restarts would not do instead: it would not help a new key, and be another thing to steal.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

# What one customer is given at most: counted in blocks of 64 bits, it would be 65,536 sources.
SITE_BITS = 48
MOST_SOURCES = 10_000

Clock = Callable[[], float]
"""Seconds that never go back."""


class Budget:
    """`burst` at once, and `per_s` in the long run."""

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._seen_s = clock()

    def take(self) -> bool:
        """Whether there was something left to take."""
        now_s = self._clock()
        self._left = min(self._burst, self._left + (now_s - self._seen_s) * self._per_s)
        self._seen_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        self._left = min(self._burst, self._left + 1)


class Guesses:
    """A budget for each source, and one for all of them together."""

    def __init__(self, budget: Callable[[], Budget], total: Budget, most_sources: int = MOST_SOURCES) -> None:
        """`budget` makes a source's. Of more than `most_sources`, the one that tried longest ago begins anew."""
        self._budget = budget
        self._total = total
        self._most_sources = most_sources
        self._budgets: OrderedDict[str, Budget] = OrderedDict()

    def __len__(self) -> int:
        return len(self._budgets)

    def take(self, source: str) -> bool:
        """Whether there was something left to take."""
        budget = self._budgets.get(source) or self._add(source)
        self._budgets.move_to_end(source)
        if not budget.take():
            return False
        if not self._total.take():
            budget.give_back()
            return False
        return True

    def give_back(self, source: str) -> None:
        self._total.give_back()
        if budget := self._budgets.get(source):
            budget.give_back()

    def _add(self, source: str) -> Budget:
        budget = self._budgets[source] = self._budget()
        if len(self._budgets) > self._most_sources:
            self._budgets.popitem(last=False)
        return budget


def source(address: str) -> str:
    """Who shares a budget: an IPv4 address or, of IPv6, where one customer has many, its site. All whose address is
    unknown share one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), SITE_BITS), strict=False))
