"""Pools: keeps the wanted number of replicas of every configured model alive, and the router informed of the pools.

It looks at every pool about once a second, and at once when a replica or the catalogue changes; `scaling.plan`
decides, a `Fleet` runs the replicas. What it keeps true: a replica that ends, for whatever reason, is replaced, and
so is one whose model's configuration has changed; every pool is declared with the router, again after the router
forgot it, and taken back when its model is not configured any more; when the service closes, no replica is left,
except on a cluster, where the next process takes over those that run.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import chain

import msgspec
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
from services.pools.messages import Connected, Drain, Ended, Event, Found, Kill, Phase, Ready, Start, Waiting
from services.pools.records import Pool, Record
from services.pools.scaling import Demand, State, plan, start_failed, started
from services.pools.settings import Settings

log = telemetry.logger(__name__)

REPLICAS = Gauge("modelplane_pools_replicas", "Replicas by what they are doing", ["model", "state"])
WANTED = Gauge("modelplane_pools_wanted_replicas", "Replicas that there should be, without those that drain", ["model"])
OUTDATED = Gauge(
    "modelplane_pools_outdated_replicas", "Replicas whose model's configuration has changed since", ["model"]
)
ENDED = Counter("modelplane_pools_replicas_ended", "Replicas that ended without being asked to", ["model"])
START_TIME = Histogram(
    "modelplane_pools_replica_start_seconds",
    "Time from the decision to start a replica until it was ready",
    ["model"],
    buckets=(1, 2, 5, 10, 20, 40, 60, 90, 120, 180, 300, 600),
)


class Pools:
    """Implements PoolsService. `start_of` describes a new replica; `clock` gives monotonic seconds.

    It is ready once each of the `required` models (default: all) that always has replicas has one.
    """

    def __init__(
        self,
        catalog: Catalog,
        settings: Settings,
        router: RouterService,
        fleet: Fleet,
        start_of: Callable[[ModelSpec, str], Start],
        *,
        required: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._pools = {spec.name: Pool.of(spec, settings) for spec in catalog}
        self._required = frozenset(self._pools if required is None else required)
        self._router = router
        self._fleet = fleet
        self._start_of = start_of
        self._clock = clock
        self._changed = asyncio.Event()
        self._draining = False
        self._loop: asyncio.Task[None] | None = None
        self._router_lost = False
        # Replicas that run already must be known before others are started.
        self._waits_for_found = fleet.outlived
        self._planned = False
        # Replicas that ended, until the router was told.
        self._gone: set[str] = set()

    async def list_replicas(self, request: pools_pb2.ListReplicasRequest, /) -> pools_pb2.ListReplicasResponse:
        infos = chain.from_iterable(pool.infos() for pool in self._pools.values())
        return pools_pb2.ListReplicasResponse(replicas=infos)

    async def list_pools(self, request: pools_pb2.ListPoolsRequest, /) -> pools_pb2.ListPoolsResponse:
        if not self._planned:
            # Who asks how many machines are needed must not be told none.
            raise Unavailable("not_ready", "It is not known yet which replicas run.", retry_after_ms=1000)
        return pools_pb2.ListPoolsResponse(pools=[pool.info() for pool in self._pools.values()])

    async def ping(self) -> None:
        """Raises Unavailable until every required model that always has replicas has one that the router knows."""
        served = {status.pool.model for status in await self._statuses() if status.replicas}
        for name, pool in self._pools.items():
            if name in self._required and pool.policy.min_replicas and not pool.removed and name not in served:
                phases = [record.phase for record in pool.records.values() if record.phase]
                detail = next(iter(phases), pool.last_error) or "no replica"
                raise Unavailable("not_ready", f"The model '{name}' is not ready: {detail}.", retry_after_ms=1000)

    async def open(self) -> None:
        await self._fleet.open(self.accept)
        self._loop = asyncio.create_task(self._keep())

    def renew(self) -> None:
        """Goes by the catalogue as it is now."""
        now = {spec.name: spec for spec in self._catalog}
        for name, spec in now.items():
            if name in self._pools:
                self._pools[name].configure(spec, self._settings)
            else:
                self._pools[name] = Pool.of(spec, self._settings)
        for name in self._pools.keys() - now.keys():
            self._pools[name].removed = True
        self._changed.set()

    async def drain(self) -> None:
        """Lets every replica finish what it has. Those that only start have nothing: `close` ends them."""
        self._draining = True
        if self._fleet.outlived:
            return
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
            with calls.call("", self._settings.interval_ms * 3 / 1000):
                statuses = {status.pool.model: status for status in await self._statuses()}
                for pool in list(self._pools.values()):
                    await self._declare(pool, statuses)
                for replica_id in list(self._gone):
                    await self._router.deregister(router_pb2.DeregisterRequest(replica_id=replica_id))
                    self._gone.discard(replica_id)
            self._router_lost = False
        except Fault as fault:
            if not self._router_lost:
                log.warning("the router does not answer", reason=fault.reason, message=fault.message)
            self._router_lost = True
        for name, pool in list(self._pools.items()):
            status = statuses.get(name) if statuses is not None else None
            if status:
                self._kill_lost(pool, {replica.id for replica in status.replicas})
            pool.demand = Demand(status.running, status.queued, status.output_tokens_per_s) if status else None
            if not self._draining and not self._waits_for_found:
                self._scale(pool)
            if pool.removed and pool.undeclared and not pool.records:
                del self._pools[name]
                log.info("pool removed", model=name)
            self._measure(pool)
        self._planned = not self._waits_for_found

    def _records(self) -> list[Record]:
        return [record for pool in self._pools.values() for record in pool.records.values()]

    async def _statuses(self) -> list[router_pb2.PoolStatus]:
        return list((await self._router.list_pools(router_pb2.ListPoolsRequest())).pools)

    async def _declare(self, pool: Pool, statuses: Mapping[str, router_pb2.PoolStatus]) -> None:
        """Tells the router of the pool as it is configured, or that it is not any more."""
        spec = pool.spec
        if pool.removed:
            if not pool.undeclared:
                await self._router.remove_pool(router_pb2.RemovePoolRequest(model=spec.name))
                pool.undeclared = pool.removed
            return
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
                await asyncio.wait_for(self._changed.wait(), self._settings.interval_ms / 1000)

    def _scale(self, pool: Pool) -> None:
        if pool.removed:
            pool.wanted = 0
            for record in list(pool.records.values()):
                self._drain(record)
            return
        planned = plan(pool.policy, pool.seen(), pool.demand, pool.memory, self._clock())
        pool.memory, pool.wanted = planned.memory, planned.wanted
        for _ in range(planned.start):
            self._start(pool)
        for replica_id in planned.drain:
            self._drain(pool.records[replica_id])

    def _kill_lost(self, pool: Pool, known: set[str]) -> None:
        """Ends the replicas whose process is there but which the router has not heard of for long."""
        now_s = self._clock()
        for record in list(pool.records.values()):
            if record.state is not State.READY or record.replica_id in known:
                record.known_at_s = now_s
            elif now_s - record.known_at_s >= self._settings.lost_after_ms / 1000:
                log.error("replica hangs", replica_id=record.replica_id, model=record.model)
                record.known_at_s = now_s
                self._fleet.send(Kill(record.replica_id))

    def _start(self, pool: Pool) -> None:
        name, now_ms = pool.spec.name, round(time.time() * 1000)
        replica_id = f"{name}-{secrets.token_hex(4)}"
        pool.records[replica_id] = Record(replica_id, name, pool.generation, now_ms, phase="waiting for Ray")
        log.info("replica starts", replica_id=replica_id, model=name, generation=pool.generation)
        start = self._start_of(pool.spec, replica_id)
        self._fleet.send(msgspec.structs.replace(start, model=name, generation=pool.generation, started_at_ms=now_ms))

    def _drain(self, record: Record) -> None:
        """Lets a replica go; one that only starts has nothing to finish."""
        if record.state is State.DRAINING:
            return
        ready, record.state = record.state is State.READY, State.DRAINING
        record.phase = "finishing what it has"
        log.info("replica drains", replica_id=record.replica_id, model=record.model)
        self._fleet.send(Drain(record.replica_id) if ready else Kill(record.replica_id))

    def accept(self, event: Event) -> None:
        """Takes in what the fleet says."""
        if isinstance(event, Connected):
            for found in event.found:
                self._take_over(found)
            self._waits_for_found = False
            self._changed.set()
            return
        pool = next((pool for pool in self._pools.values() if event.replica_id in pool.records), None)
        if pool is None:
            return
        record = pool.records[event.replica_id]
        match event:
            case Waiting(_, reason, crowded):
                record.crowded = crowded
                if record.state is State.STARTING:
                    record.phase = reason
            case Phase(_, _, phase):
                self._place(record, event)
                if record.state is State.STARTING:
                    record.phase = phase
            case Ready():
                self._place(record, event)
                self._ready(pool, record, event)
            case Ended(_, error):
                self._ended(pool, record, error)
        self._measure(pool)
        self._changed.set()

    def _take_over(self, found: Found) -> None:
        """Goes on with a replica that an earlier process started; one that nobody wants any more drains."""
        if any(found.replica_id == record.replica_id for record in self._records()):
            return
        if found.model not in self._pools:
            self._fleet.send(Drain(found.replica_id))
            return
        state = State.DRAINING if found.draining else State.STARTING
        record = Record(found.replica_id, found.model, found.generation, found.started_at_ms, state)
        record.was_ready, record.phase = True, "taken over"
        self._pools[found.model].records[found.replica_id] = record
        log.info("replica taken over", replica_id=found.replica_id, model=found.model, generation=found.generation)

    def _place(self, record: Record, said: Phase | Ready) -> None:
        record.pid, record.node_ip, record.node_name = said.pid, said.node_ip, said.node_name
        record.crowded = False

    def _ready(self, pool: Pool, record: Record, event: Ready) -> None:
        record.address = event.address
        if record.state is State.STARTING:
            record.state, record.phase, record.known_at_s = State.READY, "", self._clock()
        pool.memory, pool.last_error = started(pool.memory), ""
        ms = round(time.time() * 1000) - record.started_at_ms
        if not record.was_ready:
            START_TIME.labels(record.model).observe(ms / 1000)
        record.was_ready = True
        log.info("replica ready", replica_id=record.replica_id, model=record.model, address=event.address, ms=ms)

    def _ended(self, pool: Pool, record: Record, error: str) -> None:
        del pool.records[record.replica_id]
        # The router would only notice when heartbeats are missing.
        self._gone.add(record.replica_id)
        if record.state is State.DRAINING:
            log.info("replica ended", replica_id=record.replica_id, model=record.model)
            return
        ENDED.labels(record.model).inc()
        pool.last_error = error or "it ended"
        if not record.was_ready:
            pool.memory = start_failed(pool.policy, pool.memory, self._clock())
        log.error("replica lost", replica_id=record.replica_id, model=record.model, error=pool.last_error)

    def _measure(self, pool: Pool) -> None:
        name = pool.spec.name
        if self._pools.get(name) is not pool:
            for gauge in (WANTED, OUTDATED):
                gauge.remove(name)
            for state in State:
                REPLICAS.remove(name, state.value)
            return
        WANTED.labels(name).set(pool.wanted)
        OUTDATED.labels(name).set(pool.outdated())
        for state in State:
            REPLICAS.labels(name, state.value).set(pool.count(state))


def starter(context: Context, outlived: bool) -> Callable[[ModelSpec, str], Start]:
    """Describes new replicas; `outlived`: on a cluster, whose machines have folders of their own."""
    home = context.platform.home.absolute()
    # A replica opens no database and checks no key: it is not told how. What it serves, it is told with its start.
    withheld = {"MODELPLANE_DATABASE_URL", "MODELPLANE_AUTH_PEPPER", "MODELPLANE_CONFIG"}
    shared = {
        **{name: value for name, value in context.environment.variables.items() if name not in withheld},
        "MODELPLANE_HOME": str(home),
        "MODELPLANE_CACHE": str(context.platform.cache_directory().absolute()),
        "MODELPLANE_ROUTER_ADDRESS": context.address_of("router"),
        "MODELPLANE_BILLING_ADDRESS": context.address_of("billing"),
        # A replica is reached where it listens, whatever was said about this process; and these are its ports.
        "MODELPLANE_RPC_ADVERTISE": "",
        "MODELPLANE_RPC_HEALTH_LISTEN": "",
        "MODELPLANE_TELEMETRY_LISTEN": "",
    }

    def start_of(spec: ModelSpec, replica_id: str) -> Start:
        own = {
            "MODELPLANE_CHAT_INFERENCE_MODEL": spec.name,
            "MODELPLANE_CHAT_INFERENCE_SPEC": msgspec.json.encode(spec).decode(),
            "MODELPLANE_CHAT_INFERENCE_REPLICA_ID": replica_id,
        }
        log_file = f"logs/{spec.name.replace('/', '_')}.log"
        log_file = log_file if outlived else str(home / log_file)
        return Start(replica_id, {**shared, **own}, spec.cpus, spec.gpus, log_file, spec.resources)

    return start_of


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Pools]:
    settings, catalog = context.settings(Settings), context.catalog
    fleet = RayFleet(settings, context.platform.home.absolute())
    required = () if catalog.fluid else None
    start_of = starter(context, fleet.outlived)
    pools = Pools(catalog, settings, context.need(RouterService), fleet, start_of, required=required)
    unsubscribe = catalog.subscribe(pools.renew)
    try:
        await pools.open()
        yield pools
    finally:
        unsubscribe()
        await pools.close()
