"""The rate limiter of one machine: its decisions in memory, its buckets snapshotted to a file.

`limits` decides; this module gives it the time, turns its answers into the contract's messages and faults, and
keeps the snapshot. A decision never waits for anything, so it is atomic and concurrent calls cannot over-admit.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import Counter, Gauge

from modelplane.ratelimit.v1 import ratelimit_pb2
from services import telemetry
from services.compose import Context
from services.faults import RateLimited
from services.rate_headers import go_duration, rate_headers
from services.ratelimit import snapshot
from services.ratelimit.limits import Demand, Expectations, Granted, Level, Limits, Refused
from services.ratelimit.settings import RateLimitSettings, model_rates

log = telemetry.logger(__name__)

RESERVATIONS = Counter(
    "modelplane_reservations_total", "Reservations asked for, by outcome: granted or the fault.", ("outcome",)
)
ENTRIES = Gauge("modelplane_ratelimit_entries", "Open reservations, organisations and projects held in memory.")
SNAPSHOT_FILE = "ratelimit.snapshot"
_DIMENSIONS: Final = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}

Clock = Callable[[], int]


def steady_clock() -> Clock:
    """Unix nanoseconds that never go backwards while the process lives, whatever is done to the wall clock."""
    origin_ns = time.time_ns() - time.monotonic_ns()
    return lambda: origin_ns + time.monotonic_ns()


class RateLimiter:
    """RateLimitService over `limits`."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._granted = RESERVATIONS.labels("granted")

    async def reserve(self, request: ratelimit_pb2.ReserveRequest, /) -> ratelimit_pb2.ReserveResponse:
        """Takes from every bucket or raises RateLimited with the wait and the x-ratelimit-* headers."""
        demand = Demand(
            request.request_id,
            request.organization_id,
            request.project_id,
            request.model,
            request.input_tokens,
            request.max_output_tokens,
        )
        decision = self._limits.reserve(demand, self._clock())
        if isinstance(decision, Refused):
            fault = _fault(decision)
            RESERVATIONS.labels(fault.reason).inc()
            raise fault
        self._granted.inc()
        return _response(demand.request_id, decision)

    async def settle(self, request: ratelimit_pb2.SettleRequest, /) -> ratelimit_pb2.SettleResponse:
        self._limits.settle(request.request_id, request.tokens, self._clock())
        return ratelimit_pb2.SettleResponse()


def _response(request_id: str, granted: Granted) -> ratelimit_pb2.ReserveResponse:
    # One message from nested mappings: built one by one and copied into each other they take three times as long.
    return ratelimit_pb2.ReserveResponse(
        reservation={
            "request_id": request_id,
            "tokens": granted.tokens,
            "requests_state": _state(granted.requests_level),
            "tokens_state": _state(granted.tokens_level),
        }
    )


def _state(level: Level) -> dict[str, int]:
    """A BucketState."""
    return {"limit": level.limit, "remaining": level.remaining, "reset_ms": _whole_ms(level.until_full_ns)}


def _whole_ms(duration_ns: int) -> int:
    """Rounded up: whoever waits as long as told must find what was promised."""
    return -(-duration_ns // 1_000_000)


def _fault(refused: Refused) -> RateLimited:
    scope, id_, model = refused.owner
    where = f"{model} in {scope} {id_} on {_DIMENSIONS[refused.dimension]}: Limit {refused.limit}"
    headers = rate_headers(
        ratelimit_pb2.BucketState(**_state(refused.requests_level)),
        ratelimit_pb2.BucketState(**_state(refused.tokens_level)),
    )
    if refused.wait_ns is None:
        message = (
            f"Request too large for {where}, Requested {refused.requested}. "
            "The input or output tokens must be reduced in order to run successfully."
        )
        return RateLimited("request_too_large", message, headers=headers)
    retry_after_ms = _whole_ms(refused.wait_ns)
    message = (
        f"Rate limit reached for {where}, Used {refused.used}, Requested {refused.requested}. "
        f"Please try again in {go_duration(retry_after_ms)}."
    )
    return RateLimited(f"rate_limit_{refused.dimension}", message, retry_after_ms=retry_after_ms, headers=headers)


async def restore(limits: Limits, path: Path, clock: Clock) -> None:
    """Takes up the last snapshot. One that cannot be read is left out: full buckets are better than no service."""
    try:
        saved = await asyncio.to_thread(snapshot.load, path)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("rate limits start full: the snapshot cannot be read", path=path, error=error)
        return
    if saved is not None:
        snapshot.restore(saved, limits, clock())


async def save(limits: Limits, path: Path, clock: Clock) -> None:
    """Writes a snapshot now."""
    try:
        await asyncio.to_thread(snapshot.save, snapshot.capture(limits, clock()), path)
    except OSError as error:
        log.warning("the snapshot of the rate limits cannot be written", path=path, error=error)


async def keep(limits: Limits, path: Path, clock: Clock, interval_s: float, stopping: asyncio.Event) -> None:
    """Drops what is over and writes a snapshot, every `interval_s` and once more when `stopping` is set."""
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), interval_s)
        ENTRIES.set(limits.sweep(clock()))
        await save(limits, path, clock)


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[RateLimiter]:
    settings = context.settings(RateLimitSettings)
    rates = model_rates(settings, context.catalog, context.platform.config)
    limits = Limits(rates, Expectations(settings.expected_output_tokens), int(settings.lease_s * 1e9))
    path = context.platform.home / SNAPSHOT_FILE
    clock = steady_clock()
    await restore(limits, path, clock)
    # Ended by the event, never cancelled: a cancelled task would leave its thread writing the same file.
    stopping = asyncio.Event()
    keeper = asyncio.create_task(keep(limits, path, clock, settings.snapshot_interval_s, stopping))
    try:
        yield RateLimiter(limits, clock)
    finally:
        stopping.set()
        await keeper
