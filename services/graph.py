"""The table of services: how each is built, which contract it serves and which services it needs.

Nothing else in the project lists the services. `compose` starts them from here, in one process or in many, and
holds them to their needs: a service gets a client for what its row names and for nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Service(NamedTuple):
    """A row. Modules are named, not imported, so that a process loads only what it runs."""

    build: str
    contract: str | None = None
    needs: tuple[str, ...] = ()
    # gRPC services of others' contracts that the object answers too, as `module:Service`: what Envoy asks.
    protocols: tuple[str, ...] = ()
    # True for a service that keeps its state in PostgreSQL.
    database: bool = False


SERVICES: Mapping[str, Service] = {
    "tenants": Service(
        "services.tenants.service:build", "modelplane.tenants.v1.tenants_api:TenantsService", database=True
    ),
    "members": Service(
        "services.members.service:build", "modelplane.members.v1.members_api:MembersService", database=True
    ),
    "keys": Service("services.keys.service:build", "modelplane.keys.v1.keys_api:KeysService", database=True),
    "auth": Service(
        "services.auth.service:build",
        "modelplane.auth.v1.auth_api:AuthService",
        needs=("keys",),
        protocols=("envoy.service.auth.v3.external_auth_pb2:Authorization",),
    ),
    "tokenizer": Service("services.tokenizer.service:build", "modelplane.tokenizer.v1.tokenizer_api:TokenizerService"),
    "ratelimit": Service(
        "services.ratelimit.service:build",
        "modelplane.ratelimit.v1.ratelimit_api:RateLimitService",
        protocols=("envoy.service.ratelimit.v3.rls_pb2:RateLimitService",),
    ),
    "billing": Service(
        "services.billing.service:build", "modelplane.billing.v1.billing_api:BillingService", database=True
    ),
    "completions": Service(
        "services.completions.service:build",
        "modelplane.completions.v1.completions_api:CompletionsService",
        database=True,
    ),
    "ledger": Service(
        "services.ledger.service:build",
        "modelplane.ledger.v1.ledger_api:LedgerService",
        needs=("tenants",),
        database=True,
    ),
    "reports": Service(
        "services.reports.service:build", "modelplane.reports.v1.reports_api:ReportsService", database=True
    ),
    "notifications": Service("services.notifications.service:build", database=True),
    "router": Service("services.router.service:build", "modelplane.router.v1.router_api:RouterService"),
    "pools": Service(
        "services.pools.service:build",
        "modelplane.pools.v1.pools_api:PoolsService",
        needs=("router", "billing"),
    ),
    "chat_inference": Service(
        "services.chat_inference.service:build",
        "modelplane.chat_inference.v1.chat_inference_api:ChatInferenceService",
        needs=("router", "billing"),
    ),
    "gateway": Service(
        "services.gateway.service:build",
        needs=(
            *("auth", "tokenizer", "ratelimit", "billing", "completions", "router"),
            *("tenants", "members", "keys", "ledger", "reports"),
        ),
    ),
    "xds": Service(
        "services.xds.service:build",
        protocols=("envoy.service.discovery.v3.ads_pb2:AggregatedDiscoveryService",),
    ),
}

# The control plane of the Envoys at the edge, where there are any.
EDGE = "xds"
# Model services run inside the replicas that `pools` starts, not beside the control services.
ALL_IN_ONE: tuple[str, ...] = tuple(name for name in SERVICES if name not in {"chat_inference", EDGE})


def start_order(targets: Iterable[str]) -> list[str]:
    """The targets with each after what it needs among them. Raises KeyError for an unknown name."""
    wanted = set(targets)
    if unknown := wanted - SERVICES.keys():
        raise KeyError(f"unknown service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for need in SERVICES[name].needs:
            if need in wanted:
                visit(need)
        order.append(name)

    for name in SERVICES:
        if name in wanted:
            visit(name)
    return order
