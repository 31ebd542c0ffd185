"""The rate limiter: decides, keeps the open reservations, and corrects them once it is known what was used.

Where the buckets live is behind `buckets`; which limits hold is in the `book`. A reservation that nobody settles
ends with its lease: it is then settled at what the request is known to have used, its prompt and what it told
since, so that what a crashed caller did not use comes back. What it used and never told is lost to the limits, and
only to them: billing counts by its own records.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from prometheus_client import Gauge

from modelplane.limits.v1 import limits_pb2
from modelplane.ratelimit.v1 import ratelimit_pb2
from services import telemetry
from services.compose import Context
from services.ratelimit import envoy, reservations, settings, snapshot, tiers
from services.ratelimit.book import LimitBook
from services.ratelimit.buckets import Buckets, Clock, Correction, Level, MemoryBuckets, Need, Short
from services.ratelimit.expectations import Expectations
from services.ratelimit.limits import Measures, Plan, plan, tightest
from services.ratelimit.refusals import refusal, state
from services.ratelimit.reservations import Hold, TopUp
from services.ratelimit.settings import RateLimitSettings
from services.ratelimit.shared.settings import ValkeySettings
from services.settings import SettingsError
from services.tally import Tally

log = telemetry.logger(__name__)

RESERVATIONS = Tally(
    "modelplane_reservations_total",
    "Reservations asked for, by outcome: granted or the fault.",
    ("outcome",),
    known=("granted",),
)
ENTRIES = Gauge("modelplane_ratelimit_entries", "Open reservations and buckets held in memory.")
OPEN = Gauge("modelplane_reservations_open", "Reservations that are not settled yet.")
SNAPSHOT_FILE = "ratelimit.snapshot"
# Plans are worked out again when there are more: a plan is a few hundred bytes, and takes some 20 us.
_MOST_PLANS: Final = 20_000

_PlanKey = tuple[str, str, str, int, bytes]


def steady_clock() -> Clock:
    """Unix nanoseconds that never go backwards while the process lives, whatever is done to the wall clock."""
    origin_ns = time.time_ns() - time.monotonic_ns()
    return lambda: origin_ns + time.monotonic_ns()


class RateLimiter:
    """RateLimitService over `buckets`."""

    def __init__(
        self, buckets: Buckets, book: LimitBook, expectations: Expectations, clock: Clock, lease_ns: int
    ) -> None:
        self._buckets = buckets
        self._book = book
        self._expectations = expectations
        self._clock = clock
        self._lease_ns = lease_ns
        # In the order in which their leases end.
        self._holds: dict[str, Hold] = {}
        self._plans: dict[_PlanKey, Plan] = {}
        OPEN.set_function(lambda: len(self._holds))

    def use(self, book: LimitBook) -> None:
        """Goes by another book from now on. What is open stays as it was reserved."""
        self._book = book
        self._plans.clear()

    async def reserve(self, request: ratelimit_pb2.ReserveRequest, /) -> ratelimit_pb2.ReserveResponse:
        """Takes from every bucket or raises RateLimited with the wait and the x-ratelimit-* headers.

        Asked again for a request that is still open, it takes nothing more: a repeated call is one request.
        """
        request_id = request.request_id
        if (hold := self._holds.get(request_id)) is not None:
            return await self._again(request_id, hold)
        model, key_id = request.model, request.key_id
        plan = self._plan(request)
        input_tokens, most_output_tokens = request.input_tokens, request.max_output_tokens
        expected = self._expectations.output_tokens(model, key_id)
        tokens = plan.estimate(input_tokens, min(most_output_tokens, expected))
        needs = plan.needs(Measures(tokens, request.images, request.audio_bytes, request.batch_tokens))
        decision = await self._buckets.take(needs)
        if isinstance(decision, Short):
            fault = refusal(model, needs, decision)
            RESERVATIONS.counts[fault.reason] += 1
            raise fault
        most_tokens = input_tokens + most_output_tokens
        expires_ns = self._clock() + self._lease_ns
        new = Hold(
            plan, model, key_id, input_tokens, most_tokens, tokens, input_tokens, expires_ns, needs, decision.claims
        )
        # The same request may have been asked for twice while the buckets were far away.
        if (hold := self._holds.setdefault(request_id, new)) is not new:
            await self._buckets.settle(new.back())
            return await self._again(request_id, hold)
        RESERVATIONS.counts["granted"] += 1
        return _response(request_id, new, decision.levels)

    async def _again(self, request_id: str, hold: Hold) -> ratelimit_pb2.ReserveResponse:
        # Nothing of each: the answer is the levels as they are.
        decision = await self._buckets.take([Need(key, rate, 0) for key, rate, _ in hold.needs])
        return _response(request_id, hold, decision.levels)

    async def top_up(self, request: ratelimit_pb2.TopUpRequest, /) -> ratelimit_pb2.TopUpResponse:
        """Takes a further step for a request that has outgrown its reservation, and renews its lease."""
        request_id, used = request.request_id, request.tokens
        hold = self._holds.pop(request_id, None)
        if hold is None:
            return ratelimit_pb2.TopUpResponse()
        self._holds[request_id] = hold
        hold.expires_ns = self._clock() + self._lease_ns
        hold.known_tokens = max(hold.known_tokens, used)
        if used > hold.tokens:
            step = hold.step(used, self._expectations.output_tokens(hold.model, hold.key_id)) - hold.tokens
            hold.tokens += step
            if needs := hold.plan.token_needs(step):
                await self._extend(request_id, hold, needs)
        return ratelimit_pb2.TopUpResponse(tokens=hold.tokens)

    async def _extend(self, request_id: str, hold: Hold, needs: Sequence[Need]) -> None:
        claims = await self._buckets.extend(needs)
        if self._holds.get(request_id) is hold:
            hold.top_ups += (TopUp(needs, claims),)
            return
        # Settled meanwhile, with what it used beyond its parts charged to the last of them.
        await self._buckets.settle(
            [Correction(key, rate, claim, 0) for (key, rate, _), claim in zip(needs, claims, strict=True)]
        )

    async def settle(self, request: ratelimit_pb2.SettleRequest, /) -> ratelimit_pb2.SettleResponse:
        """Corrects a reservation to the tokens used and ends it; 0 gives all of it back. Learns from the use."""
        hold = self._holds.pop(request.request_id, None)
        tokens = request.tokens
        if hold is None:
            return ratelimit_pb2.SettleResponse()
        if tokens == 0:
            await self._buckets.settle(hold.back())
            return ratelimit_pb2.SettleResponse()
        self._expectations.learn(hold.model, hold.key_id, max(0, tokens - hold.input_tokens))
        if corrections := hold.to(tokens):
            await self._buckets.settle(corrections)
        if uncovered := hold.uncovered(tokens):
            await self._buckets.extend(uncovered)
        return ratelimit_pb2.SettleResponse()

    async def describe_limits(
        self, request: ratelimit_pb2.DescribeLimitsRequest, /
    ) -> ratelimit_pb2.DescribeLimitsResponse:
        response = ratelimit_pb2.DescribeLimitsResponse()
        for model in self._book.models():
            limits = self._book.limits(model, request.usage_tier, request.overrides)
            described = response.models.add(model=model, group=limits.group)
            for scope, by_dimension in (
                (limits_pb2.SCOPE_ORGANIZATION, limits.organization),
                (limits_pb2.SCOPE_PROJECT, limits.project),
            ):
                for dimension, limit in by_dimension.items():
                    described.limits.add(scope=scope, dimension=limits_pb2.Dimension.ValueType(dimension), limit=limit)
        return response

    async def should_rate_limit(self, request: RateLimitRequest, /) -> RateLimitResponse:
        """What another Envoy asks before it lets a request pass (its rate limit protocol)."""
        return await envoy.answer(self._buckets, self._plan, request)

    async def sweep(self) -> int:
        """Settles the reservations whose lease is over at what they are known to have used. Returns how many are
        left."""
        await self._end([*reservations.expired(self._holds, self._clock())])
        return len(self._holds)

    async def end_all(self) -> None:
        """Settles every reservation at what it is known to have used: nobody can settle them after a restart."""
        await self._end([*self._holds])

    async def _end(self, request_ids: Sequence[str]) -> None:
        # Taken out before anything is awaited: nobody can settle them a second time.
        for hold in [self._holds.pop(request_id) for request_id in request_ids]:
            if corrections := hold.to(hold.known_tokens):
                await self._buckets.settle(corrections)

    def _plan(self, request: ratelimit_pb2.ReserveRequest) -> Plan:
        overrides = request.overrides
        set_in_place = b"".join([override.SerializeToString() for override in overrides]) if overrides else b""
        key = (request.organization_id, request.project_id, request.model, request.usage_tier, set_in_place)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            limits = self._book.limits(request.model, request.usage_tier, overrides)
            found = self._plans[key] = plan(request.organization_id, request.project_id, limits)
        return found


def _response(request_id: str, hold: Hold, levels: Sequence[Level]) -> ratelimit_pb2.ReserveResponse:
    requests = len(hold.plan.requests)
    tokens = requests + (len(hold.plan.tokens) if hold.tokens else 0)
    # One message from nested mappings: built one by one and copied into each other they take three times as long.
    return ratelimit_pb2.ReserveResponse(
        reservation={
            "request_id": request_id,
            "tokens": hold.tokens,
            "requests_state": state(tightest(levels[:requests])),
            "tokens_state": state(tightest(levels[requests:tokens])),
        }
    )


class Keeper:
    """Ends what is over and keeps the snapshot. `buckets` are None when they live elsewhere, and so outlive this."""

    def __init__(
        self,
        limiter: RateLimiter,
        buckets: MemoryBuckets | None,
        expectations: Expectations,
        path: Path,
        clock: Clock,
    ) -> None:
        self._limiter = limiter
        self._buckets = buckets
        self._expectations = expectations
        self._path = path
        self._clock = clock

    async def restore(self) -> None:
        """Takes up the last snapshot. One that cannot be read is left out: full buckets are better than no service."""
        try:
            saved = await asyncio.to_thread(snapshot.load, self._path)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("rate limits start full: the snapshot cannot be read", path=self._path, error=error)
            return
        if saved is not None:
            snapshot.restore(saved, self._buckets, self._expectations, self._clock())

    async def save(self) -> None:
        """Writes a snapshot now."""
        try:
            taken = snapshot.capture(self._buckets, self._expectations, self._clock())
            await asyncio.to_thread(snapshot.save, taken, self._path)
        except OSError as error:
            log.warning("the snapshot of the rate limits cannot be written", path=self._path, error=error)

    async def run(self, interval_s: float, stopping: asyncio.Event) -> None:
        """Every `interval_s` until `stopping` is set; then once more, with no reservation left open."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), interval_s)
            entries = await self._limiter.sweep()
            ENTRIES.set(entries + (self._buckets.sweep() if self._buckets is not None else 0))
            await self.save()
        await self._limiter.end_all()
        await self.save()


@asynccontextmanager
async def _open(valkey: ValkeySettings, clock: Clock) -> AsyncIterator[tuple[MemoryBuckets | None, Buckets]]:
    """The buckets: those of this process twice, or None and those in Valkey."""
    if valkey.url:
        from services.ratelimit.shared.buckets import open_shared

        async with open_shared(valkey) as shared:
            yield None, shared
    else:
        near = MemoryBuckets(clock)
        yield near, near


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[RateLimiter]:
    own, valkey = context.settings(RateLimitSettings), context.settings(ValkeySettings)
    catalog, table = context.catalog, tiers.load()
    book = LimitBook(own, settings.read(catalog.tables), catalog, table)
    expectations = Expectations(own.expected_output_tokens)
    clock = steady_clock()
    async with _open(valkey, clock) as (near, buckets):
        limiter = RateLimiter(buckets, book, expectations, clock, int(own.lease_s * 1e9))
        keeper = Keeper(limiter, near, expectations, context.platform.home / SNAPSHOT_FILE, clock)
        await keeper.restore()

        def renew() -> None:
            try:
                limiter.use(LimitBook(own, settings.read(catalog.tables), catalog, table))
            except SettingsError as error:
                log.error("the configured limits cannot be used; the ones before are kept", error=str(error))

        unsubscribe = catalog.subscribe(renew)
        # Ended by the event, never cancelled: a cancelled task would leave its thread writing the same file.
        stopping = asyncio.Event()
        keeping = asyncio.create_task(keeper.run(own.snapshot_interval_s, stopping))
        try:
            yield limiter
        finally:
            unsubscribe()
            stopping.set()
            await keeping
