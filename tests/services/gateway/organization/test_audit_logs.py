"""The audit log, as the official SDK reads it: who did what, and only in the organisation of the key."""

import time
from typing import Any

import pytest
from openai.resources.admin.organization import AsyncOrganization

from modelplane.auth.v1.auth_pb2 import ACCESS_RESTRICTED
from modelplane.members.v1.members_pb2 import AddUserRequest
from modelplane.tenants.v1.tenants_pb2 import CreateProjectRequest
from services.gateway.organization.audit_logs import bounds
from services.scopes import SCOPES
from tests.services.gateway.organization.conftest import Console, Organization

OWN = ["project.created", "project.updated", "project.archived", "invite.sent"]


async def make_events(console: Console, admin: AsyncOrganization, place: Organization) -> str:
    """The events `OWN`, by a key that belongs to Ann; returns her id."""
    request = AddUserRequest(organization_id=place.id, email="ann@example.com", name="Ann", role="owner")
    ann = (await console.members.add_user(request)).user.id
    console.edge.auth.principals[place.admin_key].owner_id = ann
    project = await admin.projects.create(name="Research")
    await admin.projects.update(project.id, name="Search")
    await admin.projects.archive(project.id)
    await admin.invites.create(email="bob@example.com", role="reader", projects=[])
    return ann


async def test_events_say_who_did_what(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    ann = await make_events(console, admin, mine)
    events = [event async for event in admin.audit_logs.list(actor_ids=[ann], limit=3)]
    assert [event.type for event in events] == OWN[::-1]
    invited, archived, updated, created = events
    assert created.project_created and created.project_created.data and created.project
    project_id = created.project.id
    assert (created.project_created.id, created.project_created.data.name) == (project_id, "Research")
    assert updated.project_updated and updated.project_updated.changes_requested
    assert updated.project_updated.changes_requested.title == "Search"
    assert archived.project_archived and archived.project_archived.id == project_id
    assert invited.invite_sent and invited.invite_sent.data and invited.invite_sent.data.email == "bob@example.com"
    assert invited.project is None
    for event in events:
        assert event.actor and event.actor.type == "api_key" and event.actor.api_key
        assert event.actor.to_dict() == {
            "type": "api_key",
            "api_key": {"id": "key-admin-mine", "type": "user", "user": {"id": ann, "email": "ann@example.com"}},
        }


async def test_who_has_no_key_is_shown_by_the_program(console: Console, mine: Organization) -> None:
    request = CreateProjectRequest(organization_id=mine.id, name="By hand")
    request.actor.user_agent = "modelplane cli"
    project = (await console.tenants.create_project(request)).project
    path = f"/v1/organization/audit_logs?resource_ids[]={project.id}"
    [event] = (await console.ask(mine.admin_key, "GET", path)).json()["data"]
    assert event["actor"] == {"type": "session", "session": {"user_agent": "modelplane cli"}}


async def test_filters(console: Console, admin: AsyncOrganization, mine: Organization, other: Organization) -> None:
    ann = await make_events(console, admin, mine)

    async def types(**filters: Any) -> list[str]:
        return [str(event.type) async for event in admin.audit_logs.list(**filters)][::-1]

    events = [event async for event in admin.audit_logs.list(actor_emails=["ANN@example.com"])]
    project = events[-1].project
    assert [event.type for event in events] == OWN[::-1] and project
    assert await types(project_ids=[project.id]) == OWN[:3]
    assert await types(resource_ids=[project.id], event_types=["project.updated", "invite.sent"]) == OWN[1:2]
    assert await types(actor_ids=[ann, "user-nobody"], event_types=["project.created"]) == OWN[:1]
    assert await types(actor_ids=["key-admin-mine"]) == OWN
    assert await types(actor_ids=["user-nobody"]) == []
    assert await types(project_ids=[other.project_id]) == []
    now = int(time.time())
    assert await types(event_types=OWN, actor_ids=[ann], effective_at={"gte": now - 600, "lte": now}) == OWN
    assert await types(effective_at={"gt": now + 600}) == []
    assert await types(effective_at={"lt": 0}) == []
    assert await types(tenant_only=True) == []
    after = await admin.audit_logs.list(actor_ids=[ann], after=events[1].id)
    assert [event.type for event in after.data] == OWN[1::-1]
    before = await admin.audit_logs.list(actor_ids=[ann], before=events[1].id)
    assert [event.type for event in before.data] == OWN[3:]


def test_bounds() -> None:
    assert bounds({}) == (0, 0)
    assert bounds({"effective_at[gt]": 5, "effective_at[lt]": 9}) == (6, 9)
    assert bounds({"effective_at[gte]": 5, "effective_at[lte]": 9}) == (5, 10)
    assert bounds({"effective_at[gt]": 5, "effective_at[gte]": 5, "effective_at[lt]": 9, "effective_at[lte]": 9}) == (
        6,
        9,
    )
    assert bounds({"effective_at[gt]": -7, "effective_at[lt]": -7}) == (0, 1)


@pytest.mark.parametrize(
    "query", ["effective_at[gt]=now", "effective_at=1", "tenant_only=maybe", "limit=101", "types[]=x"]
)
async def test_queries_that_are_wrong(console: Console, mine: Organization, query: str) -> None:
    assert (await console.refused(mine.admin_key, "GET", f"/audit_logs?{query}"))[0] == 400


async def test_the_log_has_a_scope_of_its_own(console: Console, mine: Organization) -> None:
    principal = console.edge.auth.principals[mine.admin_key]
    principal.access = ACCESS_RESTRICTED
    principal.scopes[:] = [scope for scope in SCOPES if scope != "api.audit_logs.read"]
    assert (await console.refused(mine.admin_key, "GET", "/audit_logs"))[:2] == (403, "missing_scope")
    principal.scopes[:] = ["api.audit_logs.read"]
    assert (await console.ask(mine.admin_key, "GET", "/v1/organization/audit_logs")).status_code == 200
    assert (await console.refused(mine.admin_key, "GET", "/projects"))[:2] == (403, "missing_scope")


async def test_what_a_client_says_of_itself_is_kept_in_part(console: Console, mine: Organization) -> None:
    headers = {"authorization": f"Bearer {mine.admin_key}", "user-agent": "x" * 50_000}
    made = await console.http.post("/v1/organization/projects", json={"name": "p"}, headers=headers)
    assert made.status_code == 200
    async with console.database.connection() as connection:
        longest = await connection.execute("SELECT max(length(actor_user_agent)) FROM audit_events")
        assert await longest.fetchone() == (512,)
