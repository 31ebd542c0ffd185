"""The buckets that a decision takes from, all together or none: the seam between the decision and where they live.

`service` decides which buckets a request needs and how much of each; who implements `Buckets` keeps their levels:
here in memory for one machine, in `shared` for many gateways. Both follow the arithmetic of `gcra`.

What an implementation keeps true: a take touches every bucket or none of them, however many callers there are; a
refusal changes no bucket; a settlement never gives back more than was taken and has not refilled since.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from services.ratelimit.gcra import Bucket, Claim, Rate

Scope = Literal["organization", "project"]
Clock = Callable[[], int]
"""Nanoseconds that never go backwards while the process lives."""


class BucketKey(NamedTuple):
    """Which bucket."""

    scope: Scope
    owner_id: str
    model: str
    """A model, or the group of models that share the bucket."""

    dimension: int
    """A modelplane.limits.v1.Dimension."""

    organization_id: str = ""
    """A project's organisation, whose buckets all lie on one node of a cluster; empty for the organisation's own."""


class Need(NamedTuple):
    """What a request needs of one bucket. The rate travels with it, because limits may change at any time."""

    key: BucketKey
    rate: Rate
    units: int


class Level(NamedTuple):
    """How full a bucket is. `until_full_ns` is the time until it holds `limit` again."""

    limit: int
    remaining: int
    until_full_ns: int


class Taken(NamedTuple):
    """Everything fitted and was taken. Claims and levels are in the order of the needs; levels are those after."""

    claims: tuple[Claim, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class Short:
    """Something did not fit and nothing was taken."""

    index: int
    """The need that waits longest; the first of them when several do."""

    wait_ns: int | None
    """Time until that need fits if nothing else is taken; None when it never will."""

    levels: tuple[Level, ...]
    """In the order of the needs."""


class Correction(NamedTuple):
    """Settles one claim to what was used of it. More than was claimed is charged and may leave a debt."""

    key: BucketKey
    rate: Rate
    """The rate of the need that was claimed."""

    claim: Claim
    used: int


class Buckets(Protocol):
    """Where buckets live. No method raises because the place is out of reach: it has a policy for that.

    The keys of one call are distinct and belong to one organisation and its projects. A call that is cancelled
    has taken nothing, or gives back what it took.
    """

    async def take(self, needs: Sequence[Need], /) -> Taken | Short:
        """Takes every need or nothing."""
        ...

    async def extend(self, needs: Sequence[Need], /) -> tuple[Claim, ...]:
        """Takes without asking whether it fits: for what is used anyhow. May leave a debt."""
        ...

    async def settle(self, corrections: Sequence[Correction], /) -> None:
        """Corrects claims, each of them once. Several may be on one bucket."""
        ...


class Standing(NamedTuple):
    """How far a bucket is from full: all that a restart needs to know."""

    key: BucketKey
    until_full_ns: int


class MemoryBuckets:
    """The buckets of one machine. Atomic because nothing awaits. Full buckets are no state: `sweep` drops them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[BucketKey, Bucket] = {}

    async def take(self, needs: Sequence[Need], /) -> Taken | Short:
        """Looks at every bucket before it takes from any."""
        now_ns = self._clock()
        found = self._find(needs, now_ns)
        longest, index = 0, -1
        for position, (_, rate, units) in enumerate(needs):
            wait_ns = found[position].wait_ns(rate, units, now_ns)
            if wait_ns is None:
                return Short(position, None, _levels(needs, found, now_ns))
            if wait_ns > longest:
                longest, index = wait_ns, position
        if longest:
            return Short(index, longest, _levels(needs, found, now_ns))
        claims = [bucket.take(rate, units, now_ns) for (_, rate, units), bucket in zip(needs, found, strict=True)]
        return Taken(tuple(claims), _levels(needs, found, now_ns))

    async def extend(self, needs: Sequence[Need], /) -> tuple[Claim, ...]:
        """Takes, whatever is there."""
        now_ns = self._clock()
        found = self._find(needs, now_ns)
        return tuple(bucket.take(rate, units, now_ns) for (_, rate, units), bucket in zip(needs, found, strict=True))

    async def settle(self, corrections: Sequence[Correction], /) -> None:
        """A claim on a bucket that was forgotten since has refilled; what was used beyond it counts."""
        now_ns = self._clock()
        for key, rate, claim, used in corrections:
            bucket = self._buckets.get(key)
            if bucket is None:
                if used <= claim.units:
                    continue
                bucket = self._buckets[key] = Bucket(now_ns)
            bucket.settle(rate, claim, used, now_ns)

    def _find(self, needs: Sequence[Need], now_ns: int) -> list[Bucket]:
        buckets = self._buckets
        try:
            return [buckets[need.key] for need in needs]
        except KeyError:
            return [buckets.setdefault(need.key, Bucket(now_ns)) for need in needs]

    def states(self) -> Iterator[Standing]:
        """All buckets that are not full."""
        now_ns = self._clock()
        for key, bucket in self._buckets.items():
            if until_full_ns := bucket.until_full_ns(now_ns):
                yield Standing(key, until_full_ns)

    def restore(self, state: Standing, elapsed_ns: int) -> None:
        """Puts a bucket back as `states` gave it `elapsed_ns` ago."""
        now_ns = self._clock()
        if state.until_full_ns > elapsed_ns:
            self._buckets[state.key] = Bucket(now_ns, now_ns + state.until_full_ns - elapsed_ns)

    def sweep(self) -> int:
        """Forgets full buckets. Returns how many are left."""
        now_ns = self._clock()
        for key in [key for key, bucket in self._buckets.items() if bucket.full_ns <= now_ns]:
            del self._buckets[key]
        return len(self._buckets)


def level(rate: Rate, until_full_ns: int) -> Level:
    """The level of a bucket that is full after a time; nothing remains while it is in debt."""
    units, interval_ns = rate
    remaining = units - -(-until_full_ns // interval_ns)
    # Made as the tuple that it is: a named tuple's own constructor takes twice as long.
    return tuple.__new__(Level, (units, remaining if remaining > 0 else 0, until_full_ns))


def _levels(needs: Sequence[Need], found: Sequence[Bucket], now_ns: int) -> tuple[Level, ...]:
    return tuple(
        [
            level(rate, bucket.full_ns - now_ns if bucket.full_ns > now_ns else 0)
            for (_, rate, _), bucket in zip(needs, found, strict=True)
        ]
    )
