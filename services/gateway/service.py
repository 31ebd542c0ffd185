"""Builds the gateway and serves it over HTTP in the platform's own event loop.

Stopping is in order: no new connections, every answer finished, every run settled and recorded; only then are the
sessions to the replicas closed. Signals belong to the platform, not to the HTTP server.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from modelplane.auth.v1.auth_api import AuthService
from modelplane.billing.v1.billing_api import BillingService
from modelplane.chat_inference.v1.chat_inference_api import ChatInferenceService
from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.keys.v1.keys_api import KeysService
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.router.v1.router_api import RouterService
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from services import telemetry
from services.catalog import Catalog, Derived, generation
from services.compose import Context
from services.faults import Unavailable
from services.gateway.access import Access
from services.gateway.application import Application
from services.gateway.archive import Archive
from services.gateway.chat_completions import ChatCompletions
from services.gateway.downloads import Downloader, DownloadSettings
from services.gateway.idempotency import Idempotency
from services.gateway.images.loader import ImageLoader
from services.gateway.models import Models
from services.gateway.operations import Operations
from services.gateway.organization.actors import actors
from services.gateway.organization.routes import Administered
from services.gateway.payments_webhook import PaymentsWebhook
from services.gateway.pipeline import Pipeline
from services.gateway.routes import Endpoints, routes
from services.gateway.sessions import Sessions
from services.gateway.settings import GatewaySettings
from services.gateway.stored_completions import StoredCompletions
from services.gateway.text_completions import TextCompletions
from services.gateway.transport import GatheringProtocol
from services.settings import SettingsError

BACKLOG = 2048
CLOSE_S = 1.0

log = telemetry.logger(__name__)


class _Server(uvicorn.Server):
    """Uvicorn as one task among others: it leaves the process's signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class Gateway:
    """The running HTTP edge."""

    def __init__(
        self,
        application: Application,
        pipeline: Pipeline,
        archive: Archive,
        listener: socket.socket,
        *,
        keep_alive_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._application = application
        self._pipeline = pipeline
        self._archive = archive
        self._server = _Server(
            uvicorn.Config(
                application,
                http=GatheringProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=int(keep_alive_s),
                ssl_context_factory=(lambda _config, _default: tls) if tls else None,
            )
        )
        host, port = listener.getsockname()[:2]
        self.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
        self._task = asyncio.create_task(self._server.serve([listener]))

    async def listening(self) -> None:
        """Returns when connections are accepted."""
        await self._server.listening.wait()

    async def ping(self) -> None:
        """Raises Unavailable when no connections are accepted."""
        if self._task.done() or self._server.should_exit:
            raise Unavailable("shutting_down", "The gateway accepts no connections.")

    async def drain(self) -> None:
        """Stops accepting, and finishes what is in flight."""
        self._server.should_exit = True
        await asyncio.wait([self._task])
        await self._pipeline.finish()
        await self._archive.finish()

    async def close(self) -> None:
        """Ends what is still in flight; what was generated until now is billed."""
        self._server.should_exit = True
        await self._pipeline.close()
        # Answers get a moment to leave; a client that does not read must not hold up the end.
        await asyncio.wait([self._task], timeout=CLOSE_S)
        self._server.force_exit = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._archive.close()
        self._application.access_log.write()


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Gateway]:
    settings = context.settings(GatewaySettings)
    ledger = context.need(LedgerService)
    payments_webhook = PaymentsWebhook(ledger, settings.payment_webhook_secrets)
    router = context.need(RouterService)
    ratelimit = context.need(RateLimitService)
    tls = context.server_tls() if settings.tls else None
    listener = _listen(context.platform.host, context.platform.port, settings.write_timeout_s)
    downloads = context.settings(DownloadSettings)
    downloader = Downloader(downloads)
    sessions = Sessions(lambda address: context.connect(ChatInferenceService, address), settings.session_idle_s)
    pipeline = Pipeline(
        tokenizer=context.need(TokenizerService),
        ratelimit=ratelimit,
        router=router,
        billing=context.need(BillingService),
        sessions=sessions,
        images=ImageLoader(context.catalog, downloader, downloads, settings.max_images_bytes),
        settings=settings,
    )
    completions = context.need(CompletionsService)
    archive = Archive(completions, settings)
    idempotency = Idempotency(completions, settings)
    aliases = Derived(context.catalog, lambda models: {alias: spec.name for spec in models for alias in spec.aliases})
    marks = Derived(context.catalog, fingerprints)
    access = Access(context.need(AuthService), settings.trusted_proxies, aliases)
    endpoints = Endpoints(
        chat_completions=ChatCompletions(pipeline, archive, idempotency, marks, settings),
        text_completions=TextCompletions(pipeline, idempotency, marks, settings),
        stored_completions=StoredCompletions(completions),
        models=Models(router),
        operations=Operations(context.pings, lambda: context.serving),
        payments_webhook=payments_webhook,
        administered=Administered(
            tenants=context.need(TenantsService),
            members=context.need(MembersService),
            keys=context.need(KeysService),
            ratelimit=ratelimit,
            ledger=ledger,
            reports=context.need(ReportsService),
            actor_of=actors(access),
        ),
    )
    application = Application(routes(endpoints), access)
    gateway = Gateway(application, pipeline, archive, listener, keep_alive_s=settings.keep_alive_s, tls=tls)
    try:
        await gateway.listening()
        log.info("listening", url=gateway.url)
        yield gateway
    finally:
        await gateway.close()
        await sessions.close()
        downloader.close()


def fingerprints(catalog: Catalog) -> Mapping[str, str]:
    """By model, a mark that changes when the configuration it runs with does."""
    return {model.name: f"fp_{generation(model)}" for model in catalog}


def _listen(host: str, port: int, write_timeout_s: float) -> socket.socket:
    """A listening socket. Raises SettingsError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Accepted connections inherit it; it ends those whose client has stopped reading.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_timeout_s * 1000))
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; set MODELPLANE_PORT (or MODELPLANE_HOST) to "
            "another one"
        ) from error
    listener.setblocking(False)
    return listener
