"""The services of a running platform, as commands call them, and what commands have in common."""

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple, TypeAlias, TypeVar

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.keys.v1.keys_api import KeysService
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import BootstrapRequest, ListProjectsRequest
from services.cli.output import Answer
from services.faults import NotFound
from services.home import Home
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import Environment, PlatformSettings, SettingsError

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

ACTOR: Final = Actor(user_agent="modelplane cli")
FIRST: Final = "the one that the platform's first start made"
PAGE: Final = 100

T = TypeVar("T")
ContractT = TypeVar("ContractT")


class Platform(NamedTuple):
    """What commands talk to."""

    tenants: TenantsService
    members: MembersService
    keys: KeysService
    ratelimit: RateLimitService
    ledger: LedgerService
    reports: ReportsService

    async def organization(self, options: argparse.Namespace) -> str:
        """The id that was given, or the first run's."""
        given: str = options.organization
        return given or (await self.tenants.bootstrap(BootstrapRequest())).organization_id

    async def project(self, options: argparse.Namespace) -> tuple[str, str]:
        """The ids of the organisation and the project: those given, or the first run's, or the organisation's oldest
        project."""
        if options.organization and options.project:
            return options.organization, options.project
        first = await self.tenants.bootstrap(BootstrapRequest())
        organization_id = options.organization or first.organization_id
        if options.project:
            return organization_id, options.project
        if organization_id == first.organization_id:
            return organization_id, first.project_id
        oldest = ListProjectsRequest(organization_id=organization_id, page=Page(limit=1, ascending=True))
        for project in (await self.tenants.list_projects(oldest)).projects:
            return organization_id, project.id
        raise NotFound("project_not_found", f"There is no organization '{organization_id}', or no project in it.")


CarryOut = Callable[[Platform, argparse.Namespace], Awaitable[Answer]]


class Noun:
    """The verbs of a noun, each with the options that all have."""

    def __init__(self, subcommands: Subcommands, name: str, about: str) -> None:
        parser = subcommands.add_parser(name, help=about, description=about)
        self._verbs = parser.add_subparsers(dest="action", required=True)

    def verb(
        self, name: str, about: str, carry_out: CarryOut, *, of_one_organization: bool = True
    ) -> argparse.ArgumentParser:
        parser = self._verbs.add_parser(name, help=about, description=about)
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        if of_one_organization:
            parser.add_argument("--organization", default="", metavar="ID", help=f"default: {FIRST}")
        parser.set_defaults(carry_out=carry_out)
        return parser


async def everything(fetch: Callable[[Page], Awaitable[tuple[list[T], bool]]], id_of: Callable[[T], str]) -> list[T]:
    """All items of a list, the oldest first. `fetch` gives a page, and whether there are more."""
    found: list[T] = []
    page = Page(limit=PAGE, ascending=True)
    while True:
        items, has_more = await fetch(page)
        found += items
        if not has_more:
            return found
        page.after = id_of(items[-1])


@asynccontextmanager
async def connected(environment: Environment) -> AsyncIterator[Platform]:
    """Raises SettingsError when no platform runs on this home and none is named elsewhere."""
    home = Home(environment.group(PlatformSettings).home)
    here = home.rpc_address()
    if here is not None:
        environment = Environment({**home.variables(), **environment.variables})
    settings = environment.group(RpcSettings)
    async with AsyncExitStack() as stack:

        async def client(service: str, contract: type[ContractT]) -> ContractT:
            address = environment.address_of(service) or here
            if address is None:
                raise SettingsError(
                    f"no platform runs on {home.path}; start one with `make up`, or set MODELPLANE_HOME, or "
                    f"MODELPLANE_{service.upper()}_ADDRESS for a {service} service elsewhere"
                )
            return await stack.enter_async_context(connect(contract, address, settings))

        yield Platform(
            await client("tenants", TenantsService),
            await client("members", MembersService),
            await client("keys", KeysService),
            await client("ratelimit", RateLimitService),
            await client("ledger", LedgerService),
            await client("reports", ReportsService),
        )
