"""The router: knows the pools and their live replicas, and gives each request a slot on one of them.

State is in memory only: replicas register again within a heartbeat after a restart, and pools are declared
again by whoever runs them. Until that has had time, a request for a model that nobody has told of waits for
somebody to. What it keeps true: a slot has at most one holder; it comes back when its holder
releases it, when its replica is lost, or when the replica does not know the request any more, so that a
gateway that crashed leaks nothing. Who asks for it is the gateway's word; it only decides what is fair.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from prometheus_client import Counter, Gauge, Histogram

from modelplane.router.v1 import router_pb2
from services import context, telemetry
from services.compose import Context
from services.faults import InvalidRequest, NotFound, Unavailable
from services.router.fairness import TIERS, Owner
from services.router.pool import Member, Placed, PoolState, Waiter
from services.router.settings import Settings

log = telemetry.logger(__name__)

QUEUED = Gauge("modelplane_router_queued_requests", "Requests that wait for a slot", ["model"])
RUNNING = Gauge("modelplane_router_running_requests", "Requests placed and not yet released", ["model"])
REPLICAS = Gauge("modelplane_router_replicas", "Replicas that take requests", ["model"])
QUEUE_WAIT = Histogram(
    "modelplane_router_queue_wait_seconds",
    "Time in the queue of the requests that did not find a free slot",
    ["model", "service_tier"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120),
)
HELD_BACK = Counter(
    "modelplane_router_held_back_requests",
    "Requests that had to wait although a slot was free, because their key or project had its share of them",
    ["model", "share"],
)


def _monotonic_ms() -> float:
    return time.monotonic() * 1000


class Router:
    """Implements RouterService. `clock` gives milliseconds that never go back."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = _monotonic_ms) -> None:
        self._settings = settings
        self._clock = clock
        self._pools: dict[str, PoolState] = {}
        # Every replica's pool, and every placement, by id.
        self._pool_of: dict[str, PoolState] = {}
        self._placements: dict[str, Placed] = {}
        # From when on a model that nobody has told of does not exist, and what wakes those who wait for one.
        self._settled_at_ms = clock() + settings.settle_ms
        self._told = asyncio.Event()

    async def put_pool(self, request: router_pb2.PutPoolRequest, /) -> router_pb2.PutPoolResponse:
        if not request.pool.model:
            raise InvalidRequest("missing_required_parameter", "A pool needs a model.", param="pool.model")
        pool = self._pool(request.pool.model)
        pool.declared, pool.removed = request.pool, False
        return router_pb2.PutPoolResponse()

    async def remove_pool(self, request: router_pb2.RemovePoolRequest, /) -> router_pb2.RemovePoolResponse:
        pool = self._pools.get(request.model)
        if pool is not None and not pool.removed:
            pool.declared, pool.removed = None, True
            pool.refuse_all(_not_found(request.model))
            log.info("pool removed", model=request.model)
            self._forget(request.model)
        return router_pb2.RemovePoolResponse()

    async def list_pools(self, request: router_pb2.ListPoolsRequest, /) -> router_pb2.ListPoolsResponse:
        return router_pb2.ListPoolsResponse(
            pools=[
                router_pb2.PoolStatus(
                    pool=pool.declared,
                    replicas=[member.replica for member in pool.live],
                    running=pool.running,
                    queued=pool.queued,
                    output_tokens_per_s=pool.output_tokens_per_s,
                )
                for pool in self._pools.values()
                if pool.declared is not None
            ]
        )

    async def register(self, request: router_pb2.RegisterRequest, /) -> router_pb2.RegisterResponse:
        replica = request.replica
        for field in ("id", "model", "address", "slots"):
            if not getattr(replica, field):
                raise InvalidRequest("missing_required_parameter", f"A replica needs {field}.", param=field)
        pool = self._pool(replica.model)
        moved_from = self._pool_of.get(replica.id)
        if moved_from is not None and moved_from is not pool:
            self._lose(replica.id, "registered for another model")
        self._pool_of[replica.id] = pool
        pool.add(replica, self._clock())
        log.info("replica registered", replica_id=replica.id, model=replica.model, address=replica.address)
        return router_pb2.RegisterResponse()

    async def heartbeat(self, request: router_pb2.HeartbeatRequest, /) -> router_pb2.HeartbeatResponse:
        pool = self._pool_of.get(request.replica_id)
        if pool is None:
            return router_pb2.HeartbeatResponse(registered=False)
        now_ms = self._clock()
        member = pool.members[request.replica_id]
        member.seen_at_ms = now_ms
        member.output_tokens_per_s = request.load.output_tokens_per_s
        if member.healthy != request.load.healthy:
            member.healthy = request.load.healthy
            log.info("replica health changed", replica_id=request.replica_id, healthy=member.healthy)
            pool.changed(now_ms)
        if not member.healthy:
            pool.drop_all(member)
        self._drop_unknown(pool, member, request.load.request_ids, now_ms)
        return router_pb2.HeartbeatResponse(registered=True)

    async def deregister(self, request: router_pb2.DeregisterRequest, /) -> router_pb2.DeregisterResponse:
        """Closes the replica to new requests. It is forgotten when its heartbeats end."""
        pool = self._pool_of.get(request.replica_id)
        if pool is not None:
            pool.members[request.replica_id].draining = True
            pool.changed(self._clock())
            log.info("replica drains", replica_id=request.replica_id)
        return router_pb2.DeregisterResponse()

    async def place(self, request: router_pb2.PlaceRequest, /) -> router_pb2.PlaceResponse:
        pool = self._pools.get(request.model) or await self._appearing(request.model)
        if pool is None or pool.removed:
            raise _not_found(request.model)
        tier = request.service_tier or "default"
        if tier not in TIERS:
            raise InvalidRequest(
                "invalid_value", f"service_tier must be one of {', '.join(TIERS)}.", param="service_tier"
            )
        if request.request_id in self._placements:
            self._release(request.request_id)
        owner = (request.project_id, request.key_id)
        excluded = request.excluded_replica_ids
        placed = pool.place(request.request_id, owner, request.prefix_hash, excluded, self._clock())
        if placed is None:
            placed = await self._wait(pool, request, owner, tier)
        replica = placed.member.replica
        return router_pb2.PlaceResponse(
            # A mapping is made into the message in place, in two thirds of the time.
            placement={
                "request_id": request.request_id,
                "replica_id": replica.id,
                "address": replica.address,
                "service_tier": tier,
            }
        )

    async def release(self, request: router_pb2.ReleaseRequest, /) -> router_pb2.ReleaseResponse:
        self._release(request.request_id)
        return router_pb2.ReleaseResponse()

    def sweep(self) -> None:
        """Gives up the replicas whose heartbeats have ended."""
        oldest_ms = self._clock() - self._settings.heartbeat_timeout_ms
        silent = [
            member.replica.id
            for pool in self._pools.values()
            for member in pool.members.values()
            if member.seen_at_ms < oldest_ms
        ]
        for replica_id in silent:
            self._lose(replica_id, "no heartbeat")

    def close(self) -> None:
        """Lets go of the metrics, which would keep the pools alive."""
        for model in self._pools:
            _unmeasure(model)

    def _forget(self, model: str) -> None:
        """Drops a removed pool once its last replica is gone."""
        pool = self._pools[model]
        if pool.removed and not pool.members:
            del self._pools[model]
            _unmeasure(model)

    def _pool(self, model: str) -> PoolState:
        pool = self._pools.get(model)
        if pool is None:
            pool = self._pools[model] = PoolState(self._placements, self._settings)
            told, self._told = self._told, asyncio.Event()
            told.set()
            QUEUED.labels(model).set_function(lambda: pool.queued)
            RUNNING.labels(model).set_function(lambda: pool.running)
            REPLICAS.labels(model).set_function(lambda: len(pool.live))
        return pool

    async def _appearing(self, model: str) -> PoolState | None:
        """The pool of a model that nobody has told of yet; None when it is too late for that."""
        while model not in self._pools and (left_ms := self._settled_at_ms - self._clock()) > 0:
            deadline_s = context.remaining_s()
            if deadline_s is not None and deadline_s <= 0:
                raise Unavailable(
                    "not_ready",
                    "The platform is starting; try again shortly.",
                    retry_after_ms=self._settings.retry_after_ms,
                )
            timeout_s = left_ms / 1000 if deadline_s is None else min(left_ms / 1000, deadline_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), timeout_s)
        return self._pools.get(model)

    async def _wait(self, pool: PoolState, request: router_pb2.PlaceRequest, owner: Owner, tier: str) -> Placed:
        """Waits in the queue for a slot; leaves nothing behind when cancelled."""
        loop = asyncio.get_running_loop()
        waiter = Waiter(
            request_id=request.request_id,
            owner=owner,
            weight=request.weight,
            prefix_hash=request.prefix_hash,
            excluded=frozenset(request.excluded_replica_ids),
            tier=tier,
            turn=loop.create_future(),
        )
        if not pool.enqueue(waiter):
            raise self._overloaded(request.model)
        if share := pool.held_back(owner, waiter.excluded):
            HELD_BACK.labels(request.model, share).inc()
        timeout_s = self._settings.queue_timeout_ms / 1000
        deadline_s = context.remaining_s()
        started_s = loop.time()
        try:
            await asyncio.wait((waiter.turn,), timeout=timeout_s if deadline_s is None else min(timeout_s, deadline_s))
        except asyncio.CancelledError:
            if waiter.turn.done() and waiter.turn.exception() is None:
                pool.drop(waiter.turn.result(), self._clock())
            raise
        finally:
            pool.leave(waiter)
        if waiter.turn.done():
            QUEUE_WAIT.labels(request.model, tier).observe(loop.time() - started_s)
            return waiter.turn.result()
        if pool.reachable(waiter.excluded):
            raise self._overloaded(request.model)
        raise Unavailable(
            "no_replica",
            f"No replica of the model '{request.model}' came up in time.",
            retry_after_ms=self._settings.retry_after_ms,
        )

    def _overloaded(self, model: str) -> Unavailable:
        return Unavailable(
            "overloaded",
            f"The model '{model}' is overloaded with other requests. Please try again later.",
            retry_after_ms=self._settings.retry_after_ms,
        )

    def _release(self, request_id: str) -> None:
        placed = self._placements.get(request_id)
        if placed is not None:
            self._pool_of[placed.member.replica.id].drop(placed, self._clock())

    def _lose(self, replica_id: str, reason: str) -> None:
        pool = self._pool_of.pop(replica_id)
        member = pool.members[replica_id]
        placements, write = len(member.placements), log.info if member.draining else log.warning
        pool.remove(replica_id, self._clock())
        self._forget(member.replica.model)
        write("replica forgotten", replica_id=replica_id, reason=reason, placements=placements)

    def _drop_unknown(self, pool: PoolState, member: Member, known: Iterable[str], now_ms: float) -> None:
        """Takes back the slots of requests that the replica should know by now and does not."""
        oldest_ms = now_ms - self._settings.placement_grace_ms
        held = frozenset(known)
        late = [placed for placed in member.placements.values() if placed.placed_at_ms < oldest_ms]
        lost = [placed for placed in late if placed.request_id not in held]
        for placed in lost:
            pool.drop(placed, now_ms)
        if lost:
            log.warning("placements unknown to their replica", replica_id=member.replica.id, count=len(lost))


def _not_found(model: str) -> NotFound:
    return NotFound("model_not_found", f"The model '{model}' does not exist.", param="model")


def _unmeasure(model: str) -> None:
    for gauge in (QUEUED, RUNNING, REPLICAS):
        with suppress(KeyError):
            gauge.remove(model)


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Router]:
    settings = context.settings(Settings)
    router = Router(settings)
    sweeping = asyncio.create_task(_sweep(router, settings.heartbeat_timeout_ms / 4000))
    try:
        yield router
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        router.close()


async def _sweep(router: Router, every_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        before_s = loop.time()
        await asyncio.sleep(every_s)
        # After a stall of this process the heartbeats wait to be read: it was us who were silent.
        if loop.time() - before_s < 2 * every_s:
            router.sweep()
