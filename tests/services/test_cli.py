"""The commands, over gRPC, against the real services on a real PostgreSQL."""

import argparse
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.keys.v1.keys_api import KeysService
from modelplane.keys.v1.keys_pb2 import CreateServiceAccountRequest, GetKeyRequest
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import BootstrapRequest, ListAuditEventsRequest
from services import cli
from services.cli.advice import explained
from services.cli.amounts import nanodollars
from services.cli.keys import duration_s
from services.cli.limits import limit
from services.cli.output import table
from services.command import main, parser
from services.faults import InvalidRequest, NotFound
from services.home import Home
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
from services.rpc.connect import descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.settings import Environment, SettingsError
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from tests.services.ratelimit.limiters import Clock, Limiter


class Machine:
    """A platform that runs here, and a shell."""

    def __init__(self, home: Path, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = Home(home)
        self.home.create()
        self.tenants = Tenants(TenantsStore(database), TenantsSettings())
        self.keys = Keys(KeysStore(database), Journal(home / "revocations"), KeySettings(), KeysSettings())
        self.services: dict[type[Any], object] = {
            TenantsService: self.tenants,
            MembersService: Members(MembersStore(database)),
            KeysService: self.keys,
            RateLimitService: Limiter(Clock(), groups=(LimitGroup(name="chat", models=("small", "large")),)),
            LedgerService: Ledger(database, self.tenants, LedgerSettings()),
        }
        self._capsys = capsys

    async def run(self, line: str, **variables: str) -> str:
        """What a command prints."""
        environment = Environment({"MODELPLANE_HOME": str(self.home.path), **variables})
        await cli.run(parser().parse_args(line.split()), environment)
        return self._capsys.readouterr().out

    async def json(self, line: str) -> Any:
        return json.loads(await self.run(f"{line} --json"))


@pytest.fixture
async def machine(database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Machine]:
    async with running(Machine(tmp_path, database, capsys)) as machine:
        yield machine


@asynccontextmanager
async def running(machine: Machine) -> AsyncIterator[Machine]:
    settings = Environment(machine.home.variables()).group(RpcSettings)
    server = RpcServer(settings, {contract.__name__: descriptor_of(contract) for contract in machine.services})
    await server.start()
    for contract, service in machine.services.items():
        server.place(contract.__name__, service)
    await server.serving(True)
    machine.home.write_rpc_address(server.address)
    try:
        yield machine
    finally:
        await server.stop(0)


async def test_organizations(machine: Machine) -> None:
    first = (await machine.tenants.bootstrap(BootstrapRequest())).organization_id
    assert (await machine.json("orgs show"))["id"] == first
    made = await machine.json("orgs create Acme")
    of = f"--organization {made['id']}"
    assert [row["id"] for row in await machine.json("orgs list")] == [first, made["id"]]
    shown = await machine.json(f"orgs show {of}")
    assert (shown["name"], shown["tier"], shown["pinned"], shown["paid_dollars"]) == ("Acme", 0, False, "0")
    pinned = await machine.json(f"orgs tier {of} 4")
    assert (pinned["tier"], pinned["pinned"]) == (4, True)
    followed = await machine.json(f"orgs tier {of} auto")
    assert (followed["tier"], followed["pinned"]) == (0, False)
    with pytest.raises(NotFound):
        await machine.run("orgs show --organization org-none")


async def test_projects(machine: Machine) -> None:
    first = await machine.tenants.bootstrap(BootstrapRequest())
    made = await machine.json("projects create Research")
    assert [row["id"] for row in await machine.json("projects list")] == [first.project_id, made["id"]]
    named = await machine.json(f"projects update {made['id']} --name Search --weight 3 --ip-ranges 10.0.0.0/8 ::1")
    assert (named["name"], named["weight"], named["ip_ranges"]) == ("Search", 3, ["10.0.0.0/8", "::1/128"])
    limited = await machine.json(f"projects update {made['id']} --allow-models small large")
    assert (limited["name"], limited["only_models"], limited["no_models"]) == ("Search", ["small", "large"], None)
    assert limited["ip_ranges"] == named["ip_ranges"]
    assert (await machine.json(f"projects update {made['id']} --deny-models large"))["no_models"] == ["large"]
    free = await machine.json(f"projects update {made['id']} --deny-models --ip-ranges")
    assert (free["only_models"], free["no_models"], free["ip_ranges"]) == (None, None, [])
    assert (await machine.json(f"projects archive {made['id']}"))["archived"]
    assert [row["id"] for row in await machine.json("projects list")] == [first.project_id]
    assert len(await machine.json("projects list --archived")) == 2
    with pytest.raises(NotFound):
        await machine.run("projects archive proj_none")


async def test_people(machine: Machine) -> None:
    project_id = (await machine.tenants.bootstrap(BootstrapRequest())).project_id
    ann = await machine.json("users add ann@example.com --name Ann --role owner")
    assert (ann["role"], ann["projects"]) == ("owner", [])
    sent = await machine.json(f"invites add bob@example.com --projects {project_id}")
    assert (sent["status"], sent["role"], sent["projects"]) == ("pending", "reader", [project_id])
    bob = await machine.json(f"invites accept {sent['id']} --name Bob")
    assert (bob["email"], bob["name"], bob["projects"]) == ("bob@example.com", "Bob", [project_id])
    assert [row["status"] for row in await machine.json("invites list")] == ["accepted"]
    assert [row["id"] for row in await machine.json("users list")] == [ann["id"], bob["id"]]


async def test_keys(machine: Machine) -> None:
    first = await machine.tenants.bootstrap(BootstrapRequest())
    place: Any = {"organization_id": first.organization_id, "project_id": first.project_id}
    made = await machine.json("keys create --name laptop --expires-in 90d")
    assert (made["kind"], made["project"], made["secret"][:8]) == ("project", first.project_id, "sk-proj-")
    account = await machine.keys.create_service_account(
        CreateServiceAccountRequest(**place, name="robot", role="member")
    )
    robot = await machine.json(f"keys create --service-account {account.service_account.id} --scopes model.request")
    assert (robot["kind"], robot["secret"][:11]) == ("service_account", "sk-svcacct-")
    ann = await machine.json("users add ann@example.com --role owner")
    admin = await machine.json(f"keys create --admin --read-only --user {ann['id']}")
    assert (admin["kind"], admin["project"], admin["secret"][:9]) == ("admin", "", "sk-admin-")
    rows = {row["id"]: row for row in await machine.json("keys list")}
    assert list(rows) == [made["id"], robot["id"]]
    assert (rows[made["id"]]["name"], rows[made["id"]]["access"]) == ("laptop", "all")
    assert rows[made["id"]]["expires"] and not rows[robot["id"]]["expires"]
    assert (rows[robot["id"]]["owner"], rows[robot["id"]]["access"]) == (robot_id(account), ["model.request"])
    [listed] = await machine.json("keys list --admin")
    assert (listed["id"], listed["access"], listed["owner"]) == (admin["id"], "read_only", ann["id"])
    text = await machine.run("keys list")
    assert made["secret"] not in text and made["id"] in text
    assert made["id"] in await machine.run(f"keys revoke {made['id']}")
    with pytest.raises(NotFound):
        await machine.keys.get_key(GetKeyRequest(**place, key_id=made["id"]))
    await machine.run(f"keys revoke {admin['id']}")
    assert await machine.json("keys list --admin") == []
    with pytest.raises(InvalidRequest):
        await machine.run("keys create --scopes api.management.read")


def robot_id(made: Any) -> str:
    return str(made.service_account.id)


async def test_the_project_of_another_organization_is_its_oldest(machine: Machine) -> None:
    await machine.tenants.bootstrap(BootstrapRequest())
    acme = await machine.json("orgs create Acme")
    of = f"--organization {acme['id']}"
    second = await machine.json(f"projects create Second {of}")
    assert (await machine.json(f"keys create {of}"))["project"] == acme["project"]
    assert (await machine.json(f"keys create {of} --project {second['id']}"))["project"] == second["id"]
    with pytest.raises(NotFound):
        await machine.run(f"keys create --project {second['id']}")
    for project_id in (acme["project"], second["id"]):
        await machine.run(f"projects archive {project_id} {of}")
    with pytest.raises(NotFound):
        await machine.run(f"keys create {of}")


async def test_limits(machine: Machine) -> None:
    project_id = (await machine.tenants.bootstrap(BootstrapRequest())).project_id
    await machine.run("orgs tier 1")
    rows = {row["model"]: row for row in await machine.json("limits show")}
    assert (rows["small"]["rpm"], rows["small"]["tpd"], rows["dall-e"]["ipm"]) == (500, None, 5)
    changed = await machine.json("limits set small rpm=60 tpd=1000")
    assert [(row["model"], row["rpm"], row["tpd"]) for row in changed] == [("large", 60, 1000), ("small", 60, 1000)]
    of = f"--project {project_id}"
    [own] = await machine.json(f"limits set dall-e ipm=2 {of}")
    assert (own["ipm"], own["rpm"]) == (2, 500)
    assert next(row["ipm"] for row in await machine.json("limits show")) == 5
    assert (await machine.json(f"limits show {of}"))[2]["rpm"] == 60
    cleared = await machine.json("limits clear chat rpm")
    assert [(row["rpm"], row["tpd"]) for row in cleared] == [(500, 1000)] * 2
    assert [row["tpd"] for row in await machine.json("limits clear large")] == [None, None]
    assert (await machine.json(f"limits clear dall-e {of}"))[0]["ipm"] == 5
    assert await machine.json("limits clear a-model-of-yesterday") == []
    with pytest.raises(NotFound, match="neither a model nor a group"):
        await machine.run("limits set none rpm=1")
    with pytest.raises(NotFound, match="there are rpm"):
        await machine.run("limits clear small rps")


async def test_changes_are_in_the_audit_log(machine: Machine) -> None:
    first = await machine.tenants.bootstrap(BootstrapRequest())
    await machine.run("projects create Research")
    await machine.run("keys create")
    await machine.run("limits set small rpm=60")
    await machine.run("users add ann@example.com")
    found = await machine.tenants.list_audit_events(
        ListAuditEventsRequest(organization_id=first.organization_id, page=Page(limit=100, ascending=True))
    )
    by_command = [event.type for event in found.events if event.actor.user_agent == "modelplane cli"]
    assert by_command == ["project.created", "api_key.created", "rate_limit.updated", "user.added"]
    assert not any(event.actor.key_id for event in found.events)


async def test_tables(machine: Machine) -> None:
    first = await machine.tenants.bootstrap(BootstrapRequest())
    for number in range(120):
        await machine.run(f"projects create P{number}")
    lines = (await machine.run("projects list")).splitlines()
    assert len(lines) == 122 and lines[0].split()[:2] == ["ID", "NAME"] and lines[1].startswith(first.project_id)
    assert await machine.run("invites list") == ""
    assert table([{"a_b": None, "c": True}, {"a_b": "long", "c": [1, 2]}]) == ["A B   C", "-     yes", "long  1 2"]


async def test_without_a_platform(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_TENANTS_ADDRESS"):
        await cli.run(parser().parse_args(["orgs", "list"]), Environment({"MODELPLANE_HOME": str(tmp_path)}))


def test_a_platform_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed, it leaves its address behind."""
    Home(tmp_path).write_rpc_address("127.0.0.1:1")
    monkeypatch.setenv("MODELPLANE_HOME", str(tmp_path))
    monkeypatch.setenv("MODELPLANE_RPC_TIMEOUT_S", "0.3")
    assert main(["orgs", "list"]) == 1
    assert "`make up` starts it" in capsys.readouterr().err


def test_what_helps() -> None:
    missing = NotFound("project_not_found", "No such project: 'proj_none'.")
    assert explained(missing).startswith("No such project: 'proj_none'. `modelplane projects list` shows all")
    assert explained(InvalidRequest("invalid_value", "Invalid 'name'.")) == "Invalid 'name'."


async def test_services_elsewhere(machine: Machine, tmp_path: Path) -> None:
    """Named by their addresses, with the token of the platform; nothing is left in a home here."""
    address = machine.home.rpc_address()
    names = ("TENANTS", "MEMBERS", "KEYS", "RATELIMIT", "LEDGER", "REPORTS")
    elsewhere = {f"MODELPLANE_{name}_ADDRESS": str(address) for name in names} | machine.home.variables()
    home = tmp_path / "none"
    await machine.run("orgs create Acme", **elsewhere, MODELPLANE_HOME=str(home))
    assert not home.exists()
    assert [row["name"] for row in await machine.json("orgs list")] == ["Acme"]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (duration_s, "90"),
        (duration_s, "0d"),
        (duration_s, "1w"),
        (limit, "rpm"),
        (limit, "rps=1"),
        (limit, "rpm=-1"),
        (limit, "rpm=٣"),
        (nanodollars, "ten"),
        (nanodollars, "NaN"),
        (nanodollars, "0.0000000001"),
        (nanodollars, "1e20"),
    ],
)
def test_what_is_no_option(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


def test_options() -> None:
    assert [duration_s(text) for text in ("2s", "3m", "4h", "5d")] == [2, 180, 14400, 432000]
    assert limit("tpm=5") == (3, 5)
    assert [nanodollars(text) for text in ("1", "0.5", "-2")] == [10**9, 5 * 10**8, -2 * 10**9]
