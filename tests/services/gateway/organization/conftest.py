"""A gateway whose admin API has the real services behind it, on a real PostgreSQL, with two organisations in it."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from openai import AsyncOpenAI
from openai.resources.admin.organization import AsyncOrganization

from modelplane.auth.v1 import auth_pb2
from modelplane.auth.v1.auth_pb2 import Principal
from modelplane.keys.v1.keys_api import KeysService
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1 import members_pb2
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.tenants.v1 import tenants_pb2
from modelplane.tenants.v1.tenants_api import TenantsService
from services.key_format import KeySettings
from services.keys.journal import Journal
from services.keys.service import Keys
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.ledger.service import Ledger
from services.ledger.settings import LedgerSettings
from services.members.service import Members
from services.members.store import MembersStore
from services.ratelimit.settings import LimitGroup
from services.reports.service import Reports
from services.reports.settings import ReportsSettings
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from tests.journeys.checked import AsyncCheckedTransport
from tests.services.gateway.conftest import Edge, running_edge
from tests.services.gateway.schemas import assert_matches
from tests.services.ratelimit.limiters import Clock, Limiter

GROUP = LimitGroup(name="chat", models=("small", "large"))


@dataclasses.dataclass
class Organization:
    """An organisation with a project, and the keys that administer the one and use the other."""

    id: str
    project_id: str
    admin_key: str
    project_key: str


class Console:
    """The edge with the real services of the admin API; only which keys there are, a fake says."""

    edge: Edge
    http: httpx.AsyncClient

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self.tenants = Tenants(TenantsStore(database), TenantsSettings())
        self.ledger = Ledger(database, self.tenants, LedgerSettings())
        self.reports = Reports(database, ReportsSettings())
        self.members = Members(MembersStore(database))
        self.journal = Journal(home / "revocations.jsonl")
        self.keys = Keys(KeysStore(database), self.journal, KeySettings(), KeysSettings())
        self.limiter = Limiter(Clock(), groups=(GROUP,))
        self.services: dict[type[Any], object] = {
            TenantsService: self.tenants,
            MembersService: self.members,
            KeysService: self.keys,
            RateLimitService: self.limiter,
            LedgerService: self.ledger,
            ReportsService: self.reports,
        }

    async def found(self, name: str) -> Organization:
        """A new organisation."""
        made = await self.tenants.create_organization(tenants_pb2.CreateOrganizationRequest(name=name))
        place: dict[str, str] = {"organization_id": made.organization.id}
        admin = self.key(f"sk-admin-{name}", key_id=f"key-admin-{name}", kind=auth_pb2.KEY_KIND_ADMIN, **place)
        place["project_id"] = made.project.id
        project = self.key(f"sk-proj-{name}", key_id=f"key-proj-{name}", kind=auth_pb2.KEY_KIND_PROJECT, **place)
        return Organization(made.organization.id, made.project.id, admin, project)

    def key(self, secret: str, **principal: Any) -> str:
        """Lets a key in; returns it."""
        self.edge.auth.principals[secret] = Principal(**principal)
        return secret

    async def add_user(self, place: Organization, email: str) -> str:
        """The id of a new member of the organisation and its project."""
        organization: Any = {"organization_id": place.id}
        added = await self.members.add_user(
            members_pb2.AddUserRequest(**organization, email=email, name="Ann", role="owner")
        )
        await self.members.add_project_user(
            members_pb2.AddProjectUserRequest(
                **organization, project_id=place.project_id, user_id=added.user.id, role="member"
            )
        )
        return added.user.id

    async def ask(self, key: str, method: str, path: str, body: object = None) -> httpx.Response:
        """The answer, perhaps a refusal, to a request that no SDK would make."""
        given = {"authorization": f"Bearer {key}"} if key else {}
        response = await self.http.request(method, path, json=body, headers=given)
        if response.status_code != 200:
            assert_matches("ErrorResponse", response.json())
        return response

    async def refused(self, key: str, method: str, path: str, body: object = None) -> tuple[int, str, str | None]:
        """Status, code and param of a refusal."""
        response = await self.ask(key, method, f"/v1/organization{path}", body)
        error = response.json()["error"]
        return response.status_code, error["code"], error["param"]

    @asynccontextmanager
    async def sdk(self, organization: Organization) -> AsyncIterator[AsyncOrganization]:
        """The admin part of the official SDK; every answer is held against the specification."""
        async with (
            httpx2.AsyncClient(transport=AsyncCheckedTransport(verify=False)) as http,
            AsyncOpenAI(
                base_url=f"{self.edge.url}/v1",
                api_key="none",
                admin_api_key=organization.admin_key,
                max_retries=0,
                http_client=http,
            ) as client,
        ):
            yield client.admin.organization


@pytest.fixture
async def console(database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    console = Console(database, tmp_path)
    async with (
        running_edge(administration=console.services) as edge,
        httpx.AsyncClient(base_url=edge.url, verify=False) as http,
    ):
        console.edge, console.http = edge, http
        yield console


@pytest.fixture
async def mine(console: Console) -> Organization:
    return await console.found("mine")


@pytest.fixture
async def other(console: Console) -> Organization:
    return await console.found("other")


@pytest.fixture
async def admin(console: Console, mine: Organization) -> AsyncIterator[AsyncOrganization]:
    async with console.sdk(mine) as sdk:
        yield sdk
