"""The choice of a replica.

Requests that share a prompt prefix should meet the replica that has the prefix in its cache, but never at
the price of a hot spot. So each prefix maps to a replica by rendezvous hashing (adding or losing a replica
moves only the prefixes that map to it), and the mapping yields to the least loaded replica as soon as the
mapped one carries clearly more than the mean ("bounded load"). Nothing here reads a clock.
"""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b

LOAD_BOUND = 1.25
"""How many times the mean load, plus one request, a replica may carry and still be chosen for its prefix."""

_WORD = (1 << 64) - 1


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
