"""The choice of a replica, and the order in which requests wait for one.

Requests that share a prompt prefix should meet the replica that has the prefix in its cache, but never at
the price of a hot spot. So each prefix maps to a replica by rendezvous hashing (adding or losing a replica
moves only the prefixes that map to it), and the mapping yields to the least loaded replica as soon as the
mapped one carries clearly more than the mean ("bounded load"). Nothing here reads a clock.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

TIERS = ("scale", "priority", "default", "flex", "batch")
"""Service tiers, the one served first in front."""

LOAD_BOUND = 1.25
"""How many times the mean load, plus one request, a replica may carry and still be chosen for its prefix."""

_WORD = (1 << 64) - 1

ItemT = TypeVar("ItemT")


@dataclass(slots=True, eq=False)
class Seat:
    """A replica as placement sees it: `running` of its `slots` are taken."""

    replica_id: str
    slots: int
    # 64 bits that stand for the replica in rendezvous hashing, the same in every process.
    weight: int
    running: int = 0

    @classmethod
    def of(cls, replica_id: str, slots: int) -> "Seat":
        digest = blake2b(replica_id.encode(), digest_size=8).digest()
        return cls(replica_id, slots, int.from_bytes(digest, "big"))


def affinity(prefix_hash: int, weight: int) -> int:
    """How strongly a prefix is drawn to a replica, as 64 evenly spread bits (splitmix64's mixer)."""
    x = ((prefix_hash ^ weight) * 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


def choose(seats: Collection[Seat], prefix_hash: int, excluded: Collection[str] = ()) -> Seat | None:
    """The seat for a request with this prefix, or None when every slot outside `excluded` is taken.

    A `prefix_hash` of 0 has no preference and takes the least loaded seat.
    """
    usable = [seat for seat in seats if seat.replica_id not in excluded] if excluded else seats
    free = [seat for seat in usable if seat.running < seat.slots]
    if len(free) <= 1:
        return free[0] if free else None
    if prefix_hash:
        preferred = max(free, key=lambda seat: affinity(prefix_hash, seat.weight))
        mean = sum([seat.running for seat in usable]) / len(usable)
        if preferred.running <= LOAD_BOUND * mean + 1:
            return preferred
    return min(free, key=lambda seat: seat.running / seat.slots)


class TierQueue(Generic[ItemT]):
    """Waiting items: by tier first, in order of arrival within a tier. An item waits at most once."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[ItemT, None]] = {tier: {} for tier in TIERS}

    def __len__(self) -> int:
        return sum([len(items) for items in self._waiting.values()])

    def __iter__(self) -> Iterator[ItemT]:
        """The items in the order in which they are served. Do not change the queue while iterating."""
        for items in self._waiting.values():
            yield from items

    def push(self, tier: str, item: ItemT) -> None:
        self._waiting[tier][item] = None

    def discard(self, tier: str, item: ItemT) -> None:
        """Removes the item if it waits."""
        self._waiting[tier].pop(item, None)
