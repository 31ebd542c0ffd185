"""The replica's service: sessions and single requests on one engine, from the engine's start to its end.

Kept true: the replica becomes known to the router only once its engine is warm, and stops being known before it
stops serving; an engine that died makes the replica unhealthy at once, and `failed` says so to whoever runs it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from prometheus_client import Gauge

from modelplane.billing.v1.billing_api import BillingService
from modelplane.chat_inference.v1.chat_inference_pb2 import (
    GenerateRequest,
    GenerateResponse,
    SessionRequest,
    SessionResponse,
)
from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import Load, Replica
from services import telemetry
from services.catalog import Catalog, ModelSpec, checkpoint_directory
from services.chat_inference.engines.engine import Engine, make_engine
from services.chat_inference.registration import Registration
from services.chat_inference.reporting import UsageReporter
from services.chat_inference.runs import Runner
from services.chat_inference.sessions import Session
from services.chat_inference.settings import Settings
from services.chat_inference.weights import prepare
from services.compose import Context
from services.faults import Unavailable
from services.settings import SettingsError

log = telemetry.logger(__name__)

CACHE_USED = Gauge("modelplane_engine_cache_used_ratio", "Share of the key-value cache in use.", ["model"])

# How often the engine's health is looked at; more often than it is reported, since a dead one is replaced.
_HEALTH_INTERVAL_S = 0.25


class ChatInference:
    """Implements ChatInferenceService for one started engine."""

    def __init__(self, engine: Engine, spec: ModelSpec, billing: BillingService, settings: Settings) -> None:
        self._engine = engine
        self._spec = spec
        self._settings = settings
        self._runner = Runner(engine, spec)
        self._reporter = UsageReporter(billing, settings.usage_grace_ms / 1000, settings.usage_attempts)
        self._sessions: set[Session] = set()
        self._registration: Registration | None = None
        # When the tokens were last counted, in monotonic seconds, and how many there were.
        self._counted = time.monotonic(), 0

    async def session(self, requests: AsyncIterator[SessionRequest], /) -> AsyncIterator[SessionResponse]:
        session = self._open()
        reader = asyncio.create_task(session.read(requests))
        try:
            while (frame := await session.outbox.take()) is not None:
                yield frame
            self._sessions.discard(session)
        finally:
            reader.cancel()
            self._close(session)

    async def generate(self, request: GenerateRequest, /) -> AsyncIterator[GenerateResponse]:
        session = self._open()
        try:
            session.start(request)
            while (frame := await session.outbox.take()) is not None:
                for delta in frame.deltas:
                    yield GenerateResponse(delta=delta)
                    if delta.HasField("usage"):
                        self._sessions.discard(session)
                        return
        finally:
            self._close(session)

    def load(self) -> Load:
        """What the router is told with every heartbeat."""
        cache_used = self._engine.cache_used()
        CACHE_USED.labels(self._spec.name).set(cache_used)
        (before_s, before), counted = self._counted, (time.monotonic(), self._runner.output_tokens())
        self._counted = counted
        return Load(
            request_ids=self._runner.request_ids(),
            cache_used=cache_used,
            healthy=self._engine.healthy(),
            output_tokens_per_s=(counted[1] - before) / max(counted[0] - before_s, 1e-3),
        )

    async def ping(self) -> None:
        if not self._engine.healthy():
            raise Unavailable("not_ready", "The engine of this replica has died.")

    async def failed(self) -> None:
        """Returns when the engine can never generate again, after the router was told; the replica should end."""
        while self._engine.healthy():  # noqa: ASYNC110 - no engine has an event for its own death
            await asyncio.sleep(_HEALTH_INTERVAL_S)
        log.error("the engine died", model=self._spec.name)
        if self._registration:
            await self._registration.beat()

    def register(self, registration: Registration) -> None:
        """Makes the replica known, now that it can serve."""
        self._registration = registration
        registration.start()

    async def drain(self) -> None:
        """Leaves the router, refuses new requests and finishes what runs."""
        if self._registration:
            await self._registration.withdraw()
        await self._runner.drain()

    async def close(self) -> None:
        """Ends what still runs, tells every peer its usage, and bills what lost peers left behind."""
        if self._registration:
            await self._registration.withdraw()
        sessions = list(self._sessions)
        await asyncio.gather(*(session.end() for session in sessions))
        await asyncio.gather(*(session.left() for session in sessions))
        await self._reporter.close()

    def _open(self) -> Session:
        session = Session(self._runner, self._reporter, self._settings)
        self._sessions.add(session)
        return session

    def _close(self, session: Session) -> None:
        """A session that did not come to its own end was lost."""
        if session in self._sessions:
            session.leave()
            leaving = asyncio.ensure_future(session.left())
            leaving.add_done_callback(lambda _: self._sessions.discard(session))


def choose_model(catalog: Catalog, name: str, described: str = "") -> ModelSpec:
    """The model to serve. Raises SettingsError for a name that the catalogue does not have."""
    if described:
        return msgspec.json.decode(described, type=ModelSpec)
    spec = catalog.get(name) if name else next(iter(catalog), None)
    if spec is None:
        names = ", ".join(model.name for model in catalog)
        raise SettingsError(f"MODELPLANE_CHAT_INFERENCE_MODEL={name!r} is not in the catalogue, which has {names}")
    return spec


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[ChatInference]:
    settings = context.settings(Settings)
    spec = choose_model(context.catalog, settings.model, settings.spec)
    cache = context.platform.cache_directory()
    await prepare(spec, cache, context.report)
    engine = make_engine(spec, checkpoint_directory(spec, cache), settings)
    began = time.monotonic()
    try:
        await engine.start(context.report)
        log.info("engine started", model=spec.name, engine=spec.engine, ms=round((time.monotonic() - began) * 1000))
        service = ChatInference(engine, spec, context.need(BillingService), settings)
        replica = Replica(
            id=settings.replica_id or f"{spec.name}-{secrets.token_hex(4)}",
            model=spec.name,
            address=context.rpc_address,
            slots=spec.slots,
        )
        router = context.need(RouterService)
        service.register(Registration(router, replica, service.load, settings.heartbeat_ms / 1000))
        try:
            yield service
        finally:
            await service.close()
    finally:
        await engine.close()
