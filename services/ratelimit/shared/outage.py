"""What a gateway grants by itself while the shared buckets are out of reach: a declared share of every limit.

A gateway's own buckets hold that share and refill at that share of the rate. They outlive an outage, so a Valkey
that comes and goes does not grant the share anew each time. A request that is larger than the share but not than
the limit is let through when the share is whole, and leaves a debt: so no more than the share is granted in the
long run, and at most one such request ahead of it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from services.ratelimit.buckets import BucketKey, Correction, Level, Need, Short, Taken
from services.ratelimit.gcra import Bucket, Claim, Rate

# What these buckets have given back is counted from here, and stays negative: it tells their claims from shared ones.
_GIVEN_BACK_NS: Final = -(1 << 62)


def is_own(claim: Claim) -> bool:
    """Whether the claim is on an allowance and not on a shared bucket."""
    return claim.given_back_ns < 0


class Allowance:
    """The gateway's own buckets."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._buckets: dict[BucketKey, Bucket] = {}

    def take(self, needs: Sequence[Need], now_ns: int) -> Taken | Short:
        """As `Buckets.take`."""
        longest, index = 0, -1
        for position, (key, rate, units) in enumerate(needs):
            if units > rate.units:
                return Short(position, None, self._levels(needs, now_ns))
            own = self._own(rate)
            wait_ns = self._bucket(key, now_ns).wait_ns(own, min(units, own.units), now_ns) or 0
            if wait_ns > longest:
                longest, index = wait_ns, position
        if longest:
            return Short(index, longest, self._levels(needs, now_ns))
        return Taken(self.extend(needs, now_ns), self._levels(needs, now_ns))

    def extend(self, needs: Iterable[Need], now_ns: int) -> tuple[Claim, ...]:
        """As `Buckets.extend`."""
        return tuple([self._bucket(key, now_ns).take(self._own(rate), units, now_ns) for key, rate, units in needs])

    def settle(self, correction: Correction, now_ns: int) -> None:
        """Corrects a claim of this allowance."""
        key, rate, claim, used = correction
        self._bucket(key, now_ns).settle(self._own(rate), claim, used, now_ns)

    def sweep(self, now_ns: int) -> None:
        """Forgets full buckets."""
        for key in [key for key, bucket in self._buckets.items() if bucket.full_ns <= now_ns]:
            del self._buckets[key]

    def _bucket(self, key: BucketKey, now_ns: int) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(now_ns, 0, _GIVEN_BACK_NS)
        return bucket

    def _own(self, rate: Rate) -> Rate:
        most = max(1, int(rate.units * self._share)) if rate.units else 0
        return Rate(most, round(rate.interval_ns / self._share))

    def _levels(self, needs: Sequence[Need], now_ns: int) -> tuple[Level, ...]:
        return tuple(
            [
                Level(rate.units, bucket.remaining(self._own(rate), now_ns), bucket.until_full_ns(now_ns))
                for key, rate, _ in needs
                for bucket in (self._bucket(key, now_ns),)
            ]
        )
