"""A gateway on a real socket, with a real router, between fakes that the test can see into."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast

import httpx
import pytest
from openai import AsyncOpenAI

from modelplane.auth.v1.auth_api import AuthService
from modelplane.billing.v1.billing_api import BillingService
from modelplane.completions.v1.completions_api import CompletionsService
from modelplane.keys.v1.keys_api import KeysService
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import ListPoolsRequest, Pool, PutPoolRequest, RegisterRequest, Replica
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from services.catalog import Catalog, ModelSpec
from services.compose import Context
from services.gateway.downloads import DownloadSettings
from services.gateway.service import Gateway, build
from services.gateway.settings import GatewaySettings
from services.router.service import Router
from services.router.settings import Settings as RouterSettings
from services.settings import Group, PlatformSettings
from tests.fakes.completions import FakeCompletions
from tests.fakes.control import KEY, FakeAuth, FakeBilling, FakeRateLimit, FakeTokenizer
from tests.fakes.replica import FakeReplica

MODEL = "fake-model"
ALIAS = "fake-alias"

T = TypeVar("T")


def unserved() -> dict[type[Any], object]:
    administration = (TenantsService, MembersService, KeysService, LedgerService, ReportsService)
    return dict.fromkeys(administration)


@dataclasses.dataclass
class Edge:
    """The gateway and everything around it. `connect` and the other members stand in for compose's Context."""

    gateway_settings: GatewaySettings = dataclasses.field(default_factory=GatewaySettings)
    downloads: DownloadSettings = dataclasses.field(default_factory=DownloadSettings)
    platform: PlatformSettings = dataclasses.field(default_factory=lambda: PlatformSettings(port=0))
    auth: FakeAuth = dataclasses.field(default_factory=FakeAuth)
    tokenizer: FakeTokenizer = dataclasses.field(default_factory=lambda: FakeTokenizer(MODEL, ALIAS))
    ratelimit: FakeRateLimit = dataclasses.field(default_factory=FakeRateLimit)
    billing: FakeBilling = dataclasses.field(default_factory=FakeBilling)
    completions: FakeCompletions = dataclasses.field(default_factory=FakeCompletions)
    router: Router = dataclasses.field(default_factory=lambda: Router(RouterSettings(queue_timeout_ms=2000)))
    catalog: Catalog = dataclasses.field(
        default_factory=lambda: Catalog((ModelSpec(name=MODEL, aliases=(ALIAS,), engine="scripted"),))
    )
    replicas: dict[str, FakeReplica] = dataclasses.field(default_factory=dict)
    checks: dict[str, Callable[[], Awaitable[None]]] = dataclasses.field(default_factory=dict)
    # The services that only administrators reach; without them their endpoints do not work.
    administration: dict[type[Any], object] = dataclasses.field(default_factory=unserved)
    serving: bool = True
    url: str = ""
    _gateway: Gateway | None = None

    def settings(self, kind: type[Group]) -> Group:
        return {GatewaySettings: self.gateway_settings, DownloadSettings: self.downloads}[kind]

    def need(self, contract: type[Any]) -> object:
        there: dict[type[Any], object] = {
            AuthService: self.auth,
            TokenizerService: self.tokenizer,
            RateLimitService: self.ratelimit,
            BillingService: self.billing,
            RouterService: self.router,
            CompletionsService: self.completions,
            **self.administration,
        }
        return there[contract]

    @asynccontextmanager
    async def connect(self, contract: type[Any], address: str) -> AsyncIterator[FakeReplica]:
        yield self.replicas[address]

    def pings(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return self.checks

    def build(self) -> AbstractAsyncContextManager[Gateway]:
        return build(cast(Context, self))

    async def add_replica(self, replica: FakeReplica | None = None, slots: int = 8) -> FakeReplica:
        name = f"replica-{len(self.replicas)}"
        self.replicas[name] = replica or FakeReplica()
        await self.router.register(RegisterRequest(replica=Replica(id=name, model=MODEL, address=name, slots=slots)))
        return self.replicas[name]

    async def running(self) -> int:
        """Slots taken."""
        listed = await self.router.list_pools(ListPoolsRequest())
        return sum(pool.running for pool in listed.pools)

    @property
    def gateway(self) -> Gateway:
        assert self._gateway
        return self._gateway

    def sdk(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=KEY, **{"max_retries": 0, **options})

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)


@asynccontextmanager
async def running_edge(
    settings: GatewaySettings | None = None,
    kind: "type[Edge]" = Edge,
    administration: Mapping[type[Any], object] | None = None,
) -> AsyncIterator[Edge]:
    edge = kind(gateway_settings=settings or GatewaySettings())
    edge.administration.update(administration or {})
    pool = Pool(model=MODEL, owned_by="tests", created_at=1700000000, context_tokens=1000)
    await edge.router.put_pool(PutPoolRequest(pool=pool))
    try:
        async with edge.build() as gateway:
            edge.url, edge._gateway = gateway.url, gateway
            yield edge
    finally:
        edge.router.close()


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


async def until(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.005)
