"""Pools: keeps the wanted number of replicas of every configured model alive, and the router informed of the pools.

It looks at every pool about once a second, and at once when a replica changes; `scaling.plan` decides, a `Fleet`
runs the replicas. What it keeps true: a replica that ends, for whatever reason, is replaced; every pool is
declared with the router, again after the router forgot it; when the service closes, no replica is left.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from modelplane.pools.v1 import pools_pb2
from modelplane.router.v1 import router_pb2
from modelplane.router.v1.router_api import RouterService
from services import context as calls
from services import telemetry
from services.catalog import Catalog, ModelSpec
from services.compose import Context
from services.faults import Fault, Unavailable
from services.pools.fleet import Fleet, RayFleet
from services.pools.messages import Connected, Drain, Ended, Event, Kill, Phase, Ready, Start
from services.pools.scaling import Demand, Memory, Policy, State, plan, start_failed, started
from services.pools.settings import Settings

log = telemetry.logger(__name__)

REPLICAS = Gauge("modelplane_pools_replicas", "Replicas by what they are doing", ["model", "state"])
ENDED = Counter("modelplane_pools_replicas_ended", "Replicas that ended without being asked to", ["model"])
START_TIME = Histogram(
    "modelplane_pools_replica_start_seconds",
    "Time from the decision to start a replica until it was ready",
    ["model"],
    buckets=(1, 2, 5, 10, 20, 40, 60, 90, 120, 180, 300, 600),
)

_STATES: Final = {
    State.STARTING: pools_pb2.REPLICA_STATE_STARTING,
    State.READY: pools_pb2.REPLICA_STATE_READY,
    State.DRAINING: pools_pb2.REPLICA_STATE_DRAINING,
}


@dataclass(slots=True)
class Record:
    """A replica that was started and has not ended."""

    replica_id: str
    model: str
    started_at_ms: int
    state: State = State.STARTING
    pid: int = 0
    address: str = ""
    phase: str = ""
    was_ready: bool = False
    # Monotonic seconds when the router last knew it, or it became ready.
    known_at_s: float = 0.0

    def info(self) -> pools_pb2.ReplicaInfo:
        return pools_pb2.ReplicaInfo(
            id=self.replica_id,
            model=self.model,
            state=_STATES[self.state],
            pid=self.pid,
            address=self.address,
            started_at_ms=self.started_at_ms,
            phase=self.phase,
        )


@dataclass(slots=True)
class Pool:
    """A configured model, and its replicas by id, oldest first."""

    spec: ModelSpec
    policy: Policy
    memory: Memory = field(default_factory=Memory)
    records: dict[str, Record] = field(default_factory=dict)
    last_error: str = ""


class Pools:
    """Implements PoolsService. `start_of` describes a new replica; `clock` gives monotonic seconds."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        router: RouterService,
        fleet: Fleet,
        start_of: Callable[[ModelSpec, str], Start],
        *,
        interval_s: float,
        lost_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._router = router
        self._fleet = fleet
        self._start_of = start_of
        self._interval_s = interval_s
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._changed = asyncio.Event()
        self._draining = False
        self._loop: asyncio.Task[None] | None = None
        self._router_lost = False
        # Replicas that ended, until the router was told.
        self._gone: set[str] = set()

    async def list_replicas(self, request: pools_pb2.ListReplicasRequest, /) -> pools_pb2.ListReplicasResponse:
        infos = [record.info() for record in self._records()]
        waiting = [
            pools_pb2.ReplicaInfo(
                model=pool.spec.name,
                state=pools_pb2.REPLICA_STATE_STARTING,
                phase=f"waiting to start again after: {pool.last_error}",
            )
            for pool in self._pools.values()
            if not pool.records and pool.last_error
        ]
        return pools_pb2.ListReplicasResponse(replicas=infos + waiting)

    async def ping(self) -> None:
        """Raises Unavailable until every model that always has replicas has one that the router knows."""
        served = {status.pool.model for status in await self._statuses() if status.replicas}
        for pool in self._pools.values():
            if pool.policy.min_replicas and pool.spec.name not in served:
                phases = [record.phase for record in pool.records.values() if record.phase]
                detail = next(iter(phases), pool.last_error) or "no replica"
                raise Unavailable(
                    "not_ready", f"The model '{pool.spec.name}' is not ready: {detail}.", retry_after_ms=1000
                )

    async def open(self) -> None:
        await self._fleet.open(self.accept)
        self._loop = asyncio.create_task(self._keep())

    async def drain(self) -> None:
        """Lets every replica finish what it has. Those that only start have nothing: `close` ends them."""
        self._draining = True
        for record in self._records():
            if record.state is State.READY:
                self._drain(record)
        while any(record.state is State.DRAINING for record in self._records()):
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self._fleet.close()

    async def look(self) -> None:
        """Compares what is with what should be, and acts."""
        statuses: dict[str, router_pb2.PoolStatus] | None = None
        try:
            with calls.call("", self._interval_s * 3):
                statuses = {status.pool.model: status for status in await self._statuses()}
                for pool in self._pools.values():
                    await self._declare(pool.spec, statuses)
                for replica_id in list(self._gone):
                    await self._router.deregister(router_pb2.DeregisterRequest(replica_id=replica_id))
                    self._gone.discard(replica_id)
            self._router_lost = False
        except Fault as fault:
            if not self._router_lost:
                log.warning("the router does not answer", reason=fault.reason, message=fault.message)
            self._router_lost = True
        for pool in self._pools.values():
            status = statuses.get(pool.spec.name) if statuses is not None else None
            if status:
                self._kill_lost(pool, {replica.id for replica in status.replicas})
            self._scale(pool, Demand(status.running, status.queued) if status else None)

    def _records(self) -> list[Record]:
        return [record for pool in self._pools.values() for record in pool.records.values()]

    async def _statuses(self) -> list[router_pb2.PoolStatus]:
        return list((await self._router.list_pools(router_pb2.ListPoolsRequest())).pools)

    async def _declare(self, spec: ModelSpec, statuses: Mapping[str, router_pb2.PoolStatus]) -> None:
        wanted = router_pb2.Pool(
            model=spec.name,
            owned_by=spec.owned_by,
            created_at=spec.created_at,
            context_tokens=spec.context_tokens,
            min_replicas=spec.min_replicas,
            max_replicas=spec.max_replicas,
        )
        if spec.name not in statuses or statuses[spec.name].pool != wanted:
            await self._router.put_pool(router_pb2.PutPoolRequest(pool=wanted))

    async def _keep(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.look()
            except Exception as error:  # this loop is what replaces replicas: it must not end
                log.error("a look at the pools failed", exc_info=error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._interval_s)

    def _scale(self, pool: Pool, demand: Demand | None) -> None:
        if self._draining:
            return
        replicas = [(record.replica_id, record.state) for record in pool.records.values()]
        wanted = plan(pool.policy, replicas, demand, pool.memory, self._clock())
        pool.memory = wanted.memory
        for _ in range(wanted.start):
            self._start(pool)
        for replica_id in wanted.drain:
            self._drain(pool.records[replica_id])

    def _kill_lost(self, pool: Pool, known: set[str]) -> None:
        """Ends the replicas whose process is there but which the router has not heard of for long."""
        now_s = self._clock()
        for record in list(pool.records.values()):
            if record.state is not State.READY or record.replica_id in known:
                record.known_at_s = now_s
            elif now_s - record.known_at_s >= self._lost_after_s:
                log.error("replica hangs", replica_id=record.replica_id, model=record.model)
                record.known_at_s = now_s
                self._fleet.send(Kill(record.replica_id))

    def _start(self, pool: Pool) -> None:
        replica_id = f"{pool.spec.name}-{secrets.token_hex(4)}"
        pool.records[replica_id] = Record(
            replica_id, pool.spec.name, round(time.time() * 1000), phase="waiting for Ray"
        )
        log.info("replica starts", replica_id=replica_id, model=pool.spec.name)
        self._fleet.send(self._start_of(pool.spec, replica_id))

    def _drain(self, record: Record) -> None:
        record.state = State.DRAINING
        record.phase = "finishing what it has"
        log.info("replica drains", replica_id=record.replica_id, model=record.model)
        self._fleet.send(Drain(record.replica_id))

    def accept(self, event: Event) -> None:
        """Takes in what the fleet says."""
        if isinstance(event, Connected):
            return
        pool = next((pool for pool in self._pools.values() if event.replica_id in pool.records), None)
        if pool is None:
            return
        record = pool.records[event.replica_id]
        match event:
            case Phase(_, pid, phase):
                record.pid = pid
                if record.state is State.STARTING:
                    record.phase = phase
            case Ready(_, pid, address):
                self._ready(pool, record, pid, address)
            case Ended(_, error):
                self._ended(pool, record, error)
        for state in State:
            count = sum([record.state is state for record in pool.records.values()])
            REPLICAS.labels(pool.spec.name, state.value).set(count)
        self._changed.set()

    def _ready(self, pool: Pool, record: Record, pid: int, address: str) -> None:
        record.pid, record.address, record.was_ready = pid, address, True
        if record.state is State.STARTING:
            record.state, record.phase, record.known_at_s = State.READY, "", self._clock()
        pool.memory, pool.last_error = started(pool.memory), ""
        ms = round(time.time() * 1000) - record.started_at_ms
        START_TIME.labels(record.model).observe(ms / 1000)
        log.info("replica ready", replica_id=record.replica_id, model=record.model, address=address, ms=ms)

    def _ended(self, pool: Pool, record: Record, error: str) -> None:
        del pool.records[record.replica_id]
        if record.state is State.DRAINING:
            log.info("replica ended", replica_id=record.replica_id, model=record.model)
            return
        # The router would only notice when heartbeats are missing.
        self._gone.add(record.replica_id)
        ENDED.labels(record.model).inc()
        pool.last_error = error or "it ended"
        if not record.was_ready:
            pool.memory = start_failed(pool.policy, pool.memory, self._clock())
        log.error("replica lost", replica_id=record.replica_id, model=record.model, error=pool.last_error)


def policy_of(spec: ModelSpec, settings: Settings) -> Policy:
    return Policy(
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        slots=spec.slots,
        queued_per_replica=settings.queued_per_replica,
        scale_up_after_s=settings.scale_up_after_ms / 1000,
        scale_down_after_s=settings.scale_down_after_ms / 1000,
        backoff_s=settings.backoff_ms / 1000,
        backoff_max_s=settings.backoff_max_ms / 1000,
    )


def pools_of(catalog: Catalog, settings: Settings) -> dict[str, Pool]:
    return {spec.name: Pool(spec, policy_of(spec, settings)) for spec in catalog}


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Pools]:
    settings = context.settings(Settings)
    home = context.platform.home.absolute()
    # A replica opens no database and checks no key: it is not told how.
    withheld = {"MODELPLANE_DATABASE_URL", "MODELPLANE_AUTH_PEPPER"}
    shared = {
        **{name: value for name, value in context.environment.variables.items() if name not in withheld},
        "MODELPLANE_HOME": str(home),
        "MODELPLANE_CACHE": str(context.platform.cache_directory().absolute()),
        "MODELPLANE_ROUTER_ADDRESS": context.address_of("router"),
        "MODELPLANE_BILLING_ADDRESS": context.address_of("billing"),
        # A replica is reached where it listens, whatever was said about this process.
        "MODELPLANE_RPC_ADVERTISE": "",
    }
    if context.platform.config is not None:
        shared["MODELPLANE_CONFIG"] = str(context.platform.config.absolute())

    def start_of(spec: ModelSpec, replica_id: str) -> Start:
        own = {"MODELPLANE_CHAT_INFERENCE_MODEL": spec.name, "MODELPLANE_CHAT_INFERENCE_REPLICA_ID": replica_id}
        log_file = str(home / "logs" / f"{spec.name.replace('/', '_')}.log")
        return Start(replica_id, {**shared, **own}, spec.cpus, spec.gpus, log_file)

    pools = Pools(
        pools_of(context.catalog, settings),
        context.need(RouterService),
        RayFleet(settings, home),
        start_of,
        interval_s=settings.interval_ms / 1000,
        lost_after_s=settings.lost_after_ms / 1000,
    )
    try:
        await pools.open()
        yield pools
    finally:
        await pools.close()
