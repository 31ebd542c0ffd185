"""People over HTTP, as the SDK's admin client sees them: a real service `members` on a real PostgreSQL behind it.

Every answer that the SDK reads is held against OpenAI's specification.
"""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import httpx2
import openai
import pytest
import uvicorn
from openai import AsyncOpenAI

from modelplane.auth.v1.auth_pb2 import ACCESS_READ_ONLY, KEY_KIND_ADMIN, Principal
from modelplane.members.v1 import members_pb2 as pb
from modelplane.tenants.v1 import tenants_pb2
from modelplane.tenants.v1.tenants_api import TenantsService
from services.gateway.access import Access
from services.gateway.application import Application
from services.gateway.organization.actors import actors
from services.gateway.organization.invites import Invites
from services.gateway.organization.people import people_routes
from services.gateway.organization.project_users import ProjectUsers
from services.gateway.organization.users import Users
from services.members.service import Members
from services.members.store import MembersStore
from services.storage import Database
from tests.fakes.control import ADMIN_KEY, KEY, FakeAuth
from tests.journeys.checked import AsyncCheckedTransport
from tests.services.gateway.schemas import assert_matches

OTHER_KEY = "sk-admin-other"
READING_KEY = "sk-admin-reads"
TENANTS = """
INSERT INTO organizations (id, name) VALUES ('org-1', 'One'), ('org-2', 'Two');
INSERT INTO projects (id, organization_id, name, created_at, archived_at) VALUES
    ('proj-a', 'org-1', 'A', to_timestamp(1), NULL), ('proj-b', 'org-1', 'B', to_timestamp(2), NULL),
    ('proj-old', 'org-1', 'Old', to_timestamp(0), now()), ('proj-other', 'org-2', 'Other', to_timestamp(4), NULL);
"""


class FakeTenants:
    """Knows the active projects of organisations, the oldest first."""

    def __init__(self) -> None:
        self.projects = {"org-1": ["proj-a", "proj-b"], "org-2": ["proj-other"]}

    async def list_projects(self, request: tenants_pb2.ListProjectsRequest, /) -> tenants_pb2.ListProjectsResponse:
        assert request.page.ascending and not request.include_archived
        found = self.projects[request.organization_id][: request.page.limit]
        return tenants_pb2.ListProjectsResponse(projects=[tenants_pb2.Project(id=one) for one in found])


@dataclasses.dataclass
class Place:
    """The endpoints on a socket, and what is behind them."""

    url: str
    http: httpx.AsyncClient
    members: Members
    tenants: FakeTenants
    database: Database

    async def add(self, email: str, role: str = "reader", organization_id: str = "org-1", name: str = "") -> str:
        """The id of a new member."""
        request = pb.AddUserRequest(organization_id=organization_id, email=email, role=role, name=name)
        return (await self.members.add_user(request)).user.id

    async def ask(self, method: str, path: str, body: object = None, key: str = ADMIN_KEY) -> tuple[int, Any]:
        """Status and body of the answer to a request that no SDK would make."""
        headers = {"authorization": f"Bearer {key}", "user-agent": "tests/1.0"} if key else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        if answer.status_code != 200:
            assert_matches("ErrorResponse", answer.json())
        return answer.status_code, answer.json()

    async def refused(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, str, str | None]:
        """Status, code and param of a refusal."""
        status, answer = await self.ask(method, path, body, **options)
        assert status >= 400, answer
        return status, answer["error"]["code"], answer["error"]["param"]


@pytest.fixture
async def place(database: Database) -> AsyncIterator[Place]:
    async with database.connection() as connection:
        await connection.execute(TENANTS)
    auth, members, tenants = FakeAuth(), Members(MembersStore(database)), FakeTenants()
    auth.principals[OTHER_KEY] = Principal(organization_id="org-2", key_id="key-3", kind=KEY_KIND_ADMIN)
    auth.principals[READING_KEY] = Principal(
        organization_id="org-1", key_id="key-4", kind=KEY_KIND_ADMIN, access=ACCESS_READ_ONLY
    )
    access = Access(auth)
    actor_of = actors(access)
    routes = people_routes(
        Users(members, actor_of),
        ProjectUsers(members, actor_of),
        Invites(members, cast(TenantsService, tenants), actor_of),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        application = Application(routes, access)
        server = uvicorn.Server(uvicorn.Config(application, lifespan="off", ws="none", log_config=None))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=f"{url}/v1/organization", verify=False) as http:
            yield Place(url, http, members, tenants, database)
        server.should_exit = True
        await serving


@pytest.fixture
async def admin(place: Place) -> AsyncIterator[AsyncOpenAI]:
    """The SDK with the admin key of org-1."""
    async with (
        httpx2.AsyncClient(transport=AsyncCheckedTransport(verify=False)) as http,
        AsyncOpenAI(
            base_url=f"{place.url}/v1", api_key="none", admin_api_key=ADMIN_KEY, max_retries=0, http_client=http
        ) as sdk,
    ):
        yield sdk


# ------------------------------------------------------------------------------------------------- users


async def test_the_life_of_a_user(place: Place, admin: AsyncOpenAI) -> None:
    await place.add("owner@example.com", "owner")
    user_id = await place.add("Ann@example.com", name="Ann")
    await place.members.add_project_user(
        pb.AddProjectUserRequest(organization_id="org-1", project_id="proj-a", user_id=user_id, role="member")
    )
    users = admin.admin.organization.users
    found = await users.retrieve(user_id)
    assert (found.id, found.name, found.email, found.role) == (user_id, "Ann", "Ann@example.com", "reader")
    assert found.user and (found.user.id, found.user.email) == (user_id, "Ann@example.com")
    assert found.projects and [one.to_dict() for one in found.projects.data] == [
        {"id": "proj-a", "name": "A", "role": "member"}
    ]
    assert (found.api_key_last_used_at, found.is_service_account) == (None, False)
    updated = await users.update(user_id, role="owner")
    assert updated.to_dict() == {**found.to_dict(), "role": "owner"}
    assert (await users.update(user_id, role="viewer")).role == "viewer"
    deleted = await users.delete(user_id)
    assert deleted.to_dict() == {"object": "organization.user.deleted", "id": user_id, "deleted": True}
    with pytest.raises(openai.NotFoundError) as raised:
        await users.retrieve(user_id)
    assert raised.value.code == "user_not_found"


async def test_users_are_listed(place: Place, admin: AsyncOpenAI) -> None:
    ids = [await place.add(f"u{number}@example.com") for number in range(5)]
    await place.add("foreign@example.com", organization_id="org-2")
    users = admin.admin.organization.users
    page = await users.list(limit=2)
    assert [user.id for user in page.data] == [ids[4], ids[3]]
    assert (page.has_more, page.last_id) == (True, ids[3])
    assert [user.id async for user in users.list(limit=2)] == ids[::-1]
    found = await users.list(emails=["U1@example.com", "u3@example.com", "foreign@example.com"])
    assert [user.id for user in found.data] == [ids[3], ids[1]]
    for user in found.data:
        assert_matches("User", user.to_dict())
    status, answer = await place.ask("GET", "/users?emails=u0@example.com")
    assert (status, answer["first_id"], answer["last_id"]) == (200, ids[0], ids[0])
    status, answer = await place.ask("GET", f"/users?limit=2&before={ids[1]}")
    assert ([user["id"] for user in answer["data"]], answer["has_more"]) == ([ids[3], ids[2]], True)


@pytest.mark.parametrize("path", ["/users", "/projects/proj-a/users", "/invites"])
async def test_an_empty_list(place: Place, path: str) -> None:
    empty: dict[str, Any] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert await place.ask("GET", path) == (200, empty)
    for cursor in ("nothing", "%00"):
        assert await place.refused("GET", f"{path}?after={cursor}") == (400, "invalid_value", "after")


@pytest.mark.parametrize("path", ["/users", "/projects/proj-a/users", "/invites"])
async def test_queries_that_are_wrong(place: Place, path: str) -> None:
    assert await place.refused("GET", f"{path}?limit=0") == (400, "integer_below_min_value", "limit")
    assert await place.refused("GET", f"{path}?limit=101") == (400, "integer_above_max_value", "limit")
    assert await place.refused("GET", f"{path}?limit=many") == (400, "invalid_type", "limit")
    assert await place.refused("GET", f"{path}?limit=") == (400, "invalid_type", "limit")
    assert await place.refused("GET", f"{path}?page=2") == (400, "unknown_parameter", "page")
    assert await place.refused("GET", path + "?" + "after=a&" * 600) == (400, "invalid_value", None)
    if path != "/users":
        assert await place.refused("GET", f"{path}?emails=a") == (400, "unknown_parameter", "emails")


async def test_the_last_owner_stays(place: Place, admin: AsyncOpenAI) -> None:
    owner = await place.add("owner@example.com", "owner")
    users = admin.admin.organization.users
    with pytest.raises(openai.BadRequestError) as raised:
        await users.update(owner, role="reader")
    assert raised.value.code == "last_owner"
    with pytest.raises(openai.BadRequestError):
        await users.delete(owner)
    await place.add("second@example.com", "owner")
    assert (await users.delete(owner)).deleted


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, ("missing_required_parameter", "role")),
        ({"role": None}, ("missing_required_parameter", "role")),
        ({"role": "member"}, ("invalid_value", "role")),
        ({"role": 1}, ("invalid_type", "role")),
        ({"role": "owner", "name": "x"}, ("unknown_parameter", "name")),
        ({"role": "owner", "role_id": "role-1"}, ("unsupported_parameter", "role_id")),
        ({"role": "owner", "technical_level": "high"}, ("unsupported_parameter", "technical_level")),
        ([], ("invalid_type", None)),
    ],
)
async def test_updates_of_users_that_are_wrong(place: Place, body: object, refusal: tuple[str, str | None]) -> None:
    user_id = await place.add("a@example.com")
    assert await place.refused("POST", f"/users/{user_id}", body) == (400, *refusal)


# ---------------------------------------------------------------------------------------- project users


async def test_the_life_of_a_project_user(place: Place, admin: AsyncOpenAI) -> None:
    ann, bob = await place.add("Ann@example.com", name="Ann"), await place.add("bob@example.com")
    users = admin.admin.organization.projects.users
    added = await users.create("proj-a", user_id=ann, role="owner")
    assert (added.id, added.name, added.email, added.role) == (ann, "Ann", "Ann@example.com", "owner")
    by_address = await users.create("proj-a", email="BOB@example.com", role="member")
    assert (by_address.id, by_address.name) == (bob, None)
    with pytest.raises(openai.BadRequestError) as raised:
        await users.create("proj-a", user_id=bob, role="member")
    assert raised.value.code == "already_member"
    assert (await users.retrieve(ann, project_id="proj-a")).to_dict() == added.to_dict()
    updated = await users.update(ann, project_id="proj-a", role="viewer")
    assert updated.to_dict() == {**added.to_dict(), "role": "viewer"}
    assert [user.id async for user in users.list("proj-a", limit=1)] == [bob, ann]
    page = await users.list("proj-a", limit=1, after=bob)
    assert [user.to_dict() for user in page.data] == [updated.to_dict()]
    deleted = await users.delete(ann, project_id="proj-a")
    assert deleted.to_dict() == {"object": "organization.project.user.deleted", "id": ann, "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await users.retrieve(ann, project_id="proj-a")
    assert (await admin.admin.organization.users.retrieve(ann)).role == "reader"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"user_id": "user-1"}, (400, "missing_required_parameter", "role")),
        ({"role": "member"}, (400, "missing_required_parameter", "user_id")),
        ({"role": "member", "user_id": None}, (400, "missing_required_parameter", "user_id")),
        ({"role": "member", "user_id": "u", "email": "a@example.com"}, (400, None, "email")),
        ({"role": "reader", "user_id": "user-1"}, (400, "invalid_value", "role")),
        ({"role": "member", "user_id": 1}, (400, "invalid_type", "user_id")),
        ({"role": "member", "user_id": "user-1", "id": 1}, (400, "unknown_parameter", "id")),
        ({"role": "member", "user_id": "user-1"}, (404, "user_not_found", None)),
        ({"role": "member", "email": "a\0@example.com"}, (404, "user_not_found", None)),
    ],
)
async def test_project_users_that_cannot_be(place: Place, body: object, refusal: tuple[int, str, str]) -> None:
    assert await place.refused("POST", "/projects/proj-a/users", body) == refusal


@pytest.mark.parametrize(
    ("project_id", "refusal"),
    [("proj-old", (400, "project_archived", None)), ("proj-other", (404, "project_not_found", None))],
)
async def test_projects_without_users(place: Place, project_id: str, refusal: tuple[int, str, None]) -> None:
    user_id = await place.add("a@example.com")
    body = {"user_id": user_id, "role": "member"}
    users = f"/projects/{project_id}/users"
    assert await place.refused("GET", users) == refusal
    assert await place.refused("POST", users, body) == refusal
    assert await place.refused("GET", f"{users}/{user_id}") == refusal
    assert await place.refused("POST", f"{users}/{user_id}", {"role": "owner"}) == refusal
    assert await place.refused("DELETE", f"{users}/{user_id}") == refusal


# ----------------------------------------------------------------------------------------------- invites


async def test_the_life_of_an_invite(place: Place, admin: AsyncOpenAI) -> None:
    invites = admin.admin.organization.invites
    sent = await invites.create(email="New@example.com", role="owner", projects=[{"id": "proj-b", "role": "owner"}])
    assert (sent.email, sent.role, sent.status) == ("New@example.com", "owner", "pending")
    assert sent.expires_at == sent.created_at + 7 * 24 * 3600
    assert [one.to_dict() for one in sent.projects] == [{"id": "proj-b", "role": "owner"}]
    assert (await invites.retrieve(sent.id)).to_dict() == sent.to_dict()
    with pytest.raises(openai.BadRequestError) as raised:
        await invites.create(email="new@example.com", role="reader")
    assert raised.value.code == "invite_exists"
    withdrawn = await invites.create(email="b@example.com", role="reader")
    gone = await invites.delete(withdrawn.id)
    assert gone.to_dict() == {"object": "organization.invite.deleted", "id": withdrawn.id, "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await invites.retrieve(withdrawn.id)
    request = pb.AcceptInviteRequest(organization_id="org-1", invite_id=sent.id, name="New")
    user = (await place.members.accept_invite(request)).user
    accepted = await invites.retrieve(sent.id)
    assert (accepted.status, bool(accepted.accepted_at)) == ("accepted", True)
    assert (await admin.admin.organization.users.retrieve(user.id)).role == "owner"
    with pytest.raises(openai.BadRequestError) as raised:
        await invites.delete(sent.id)
    assert raised.value.code == "invite_accepted"


async def test_projects_that_an_invite_does_not_name(place: Place, admin: AsyncOpenAI) -> None:
    invites = admin.admin.organization.invites
    legacy = await invites.create(email="a@example.com", role="reader")
    assert [one.to_dict() for one in legacy.projects] == [{"id": "proj-a", "role": "member"}]
    assert (await invites.create(email="b@example.com", role="reader", projects=[])).projects == []
    place.tenants.projects["org-1"] = []
    assert (await invites.create(email="c@example.com", role="reader")).projects == []


async def test_invites_are_listed(admin: AsyncOpenAI) -> None:
    invites = admin.admin.organization.invites
    ids = [(await invites.create(email=f"u{number}@example.com", role="reader")).id for number in range(3)]
    assert [invite.id async for invite in invites.list(limit=1)] == ids[::-1]
    page = await invites.list(limit=2)
    assert (page.has_more, [invite.status for invite in page.data]) == (True, ["pending"] * 2)
    for invite in page.data:
        assert_matches("Invite", invite.to_dict())


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"email": None}, (400, "missing_required_parameter", "email")),
        ({"role": None}, (400, "missing_required_parameter", "role")),
        ({"email": "nobody"}, (400, "invalid_value", "email")),
        ({"email": 1}, (400, "invalid_type", "email")),
        ({"role": "member"}, (400, "invalid_value", "role")),
        ({"name": "x"}, (400, "unknown_parameter", "name")),
        ({"projects": {}}, (400, "invalid_type", "projects")),
        ({"projects": ["proj-a"]}, (400, "invalid_type", "projects[0]")),
        ({"projects": [{"id": "proj-a"}]}, (400, "missing_required_parameter", "projects[0].role")),
        ({"projects": [{"role": "owner"}]}, (400, "missing_required_parameter", "projects[0].id")),
        ({"projects": [{"id": "proj-a", "role": "x"}]}, (400, "invalid_value", "projects[0].role")),
        ({"projects": [{"id": "proj-a", "role": "owner", "x": 1}]}, (400, "unknown_parameter", "projects[0].x")),
        ({"projects": [{"id": "proj-a", "role": "owner"}] * 2}, (400, "invalid_value", "projects")),
        ({"projects": [{"id": "proj-a", "role": "owner"}] * 101}, (400, "array_above_max_length", "projects")),
        ({"projects": [{"id": "proj-other", "role": "owner"}]}, (404, "project_not_found", "projects")),
        ({"projects": [{"id": "proj-old", "role": "owner"}]}, (400, "project_archived", "projects")),
        ({"email": "Member@example.com"}, (400, "already_member", "email")),
    ],
)
async def test_invites_that_cannot_be(place: Place, change: dict[str, Any], refusal: tuple[int, str, str]) -> None:
    await place.add("member@example.com")
    body = {"email": "new@example.com", "role": "reader", **change}
    assert await place.refused("POST", "/invites", body) == refusal


# ------------------------------------------------------------------------------------------- who may call


async def everything(place: Place) -> list[tuple[str, str, object]]:
    """A call of every endpoint, all of which succeed for org-1 in this order."""
    await place.add("owner@example.com", "owner")
    user_id = await place.add("a@example.com")
    sent = await place.members.create_invite(
        pb.CreateInviteRequest(organization_id="org-1", email="b@example.com", role="reader")
    )
    users, invite_id = "/projects/proj-a/users", sent.invite.id
    return [
        ("GET", "/users", None),
        ("GET", f"/users/{user_id}", None),
        ("POST", f"/users/{user_id}", {"role": "viewer"}),
        ("GET", users, None),
        ("POST", users, {"user_id": user_id, "role": "member"}),
        ("GET", f"{users}/{user_id}", None),
        ("POST", f"{users}/{user_id}", {"role": "owner"}),
        ("DELETE", f"{users}/{user_id}", None),
        ("GET", "/invites", None),
        ("POST", "/invites", {"email": "c@example.com", "role": "reader", "projects": []}),
        ("GET", f"/invites/{invite_id}", None),
        ("DELETE", f"/invites/{invite_id}", None),
        ("DELETE", f"/users/{user_id}", None),
    ]


async def test_only_admin_keys_get_in_and_reading_ones_change_nothing(place: Place) -> None:
    calls = await everything(place)
    for method, path, body in calls:
        assert (await place.refused(method, path, body, key=""))[0] == 401
        assert (await place.refused(method, path, body, key=KEY))[:2] == (403, "insufficient_permissions")
        if method != "GET":
            assert (await place.refused(method, path, body, key=READING_KEY))[:2] == (403, "missing_scope")
    assert {(await place.ask(*call))[0] for call in calls} == {200}
    for method, path, body in calls:
        if method == "GET":
            # Those of one object look for what is gone by now.
            assert (await place.ask(method, path, body, key=READING_KEY))[0] in (200, 404)


async def test_another_organisation_finds_nothing(place: Place) -> None:
    """Not even whether it exists: the answers are those for names that nobody ever had."""
    for method, path, body in await everything(place):
        status, answer = await place.ask(method, path, body, key=OTHER_KEY)
        if path in ("/users", "/invites"):
            assert status == 200
            assert method == "POST" or answer["data"] == []
            continue
        assert status == 404
        name = path.removeprefix("/projects/").removeprefix("/users/").removeprefix("/invites/").split("/")[0]
        nobodys = await place.ask(method, path.replace(name, "nobodys"), body, key=OTHER_KEY)
        assert answer["error"]["message"].replace(name, "nobodys") == nobodys[1]["error"]["message"]


@pytest.mark.parametrize("path", ["/users/%00", "/users/%ff", "/invites/%00", "/projects/%00/users"])
async def test_names_that_nothing_can_have(place: Place, path: str) -> None:
    assert (await place.refused("GET", path))[0] == 404


async def test_the_audit_log_knows_who_it_was(place: Place) -> None:
    body = {"email": "a@example.com", "role": "reader"}
    status, _ = await place.ask("POST", "/invites", body)
    assert status == 200
    async with place.database.connection() as connection:
        rows = await connection.execute(
            "SELECT type, actor_key_id, actor_redacted_key, actor_ip_address, actor_user_agent, request_id "
            "FROM audit_events"
        )
        found = await rows.fetchall()
    assert [row[:5] for row in found] == [("invite.sent", "key-2", "sk-admin-****", "127.0.0.1", "tests/1.0")]
    assert found[0][5].startswith("req_")
