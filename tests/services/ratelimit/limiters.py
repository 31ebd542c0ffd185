"""Limiters in virtual time, with the limits that a test wants."""

import msgspec

from services.catalog import Catalog, ModelSpec
from services.ratelimit import tiers
from services.ratelimit.book import LimitBook
from services.ratelimit.buckets import MemoryBuckets
from services.ratelimit.expectations import Expectations
from services.ratelimit.service import RateLimiter
from services.ratelimit.settings import LimitGroup, LimitsConfig, LimitsTable, RateLimitSettings

SECOND_NS = 1_000_000_000
LEASE_NS = 900 * SECOND_NS
CATALOG = Catalog((ModelSpec(name="small", aliases=("tiny",)), ModelSpec(name="large"), ModelSpec(name="dall-e")))


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)


def table(model: str, **limits: int | str) -> LimitsTable:
    """A `[[limits]]` table."""
    return msgspec.convert({"model": model, **limits}, LimitsTable)


def make_book(*tables: LimitsTable, groups: tuple[LimitGroup, ...] = (), **flat: int) -> LimitBook:
    config = LimitsConfig(limits=tables, limit_groups=groups)
    return LimitBook(RateLimitSettings(**flat), config, CATALOG, tiers.load())


class Limiter(RateLimiter):
    """A limiter over buckets in memory, both within a test's reach."""

    def __init__(
        self, clock: Clock, *tables: LimitsTable, groups: tuple[LimitGroup, ...] = (), guess: int = 200
    ) -> None:
        self.buckets = MemoryBuckets(clock)
        self.expectations = Expectations(guess)
        super().__init__(self.buckets, make_book(*tables, groups=groups), self.expectations, clock, LEASE_NS)
