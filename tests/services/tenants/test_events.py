"""The audit log is found by all its filters, alone and together, and by pages."""

import asyncio
from typing import Any

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.tenants.v1 import tenants_pb2 as pb
from services.storage import Database
from services.storage.audit import audit
from services.tenants.service import Tenants
from tests.services.tenants.conftest import ACTOR, events


async def test_the_audit_log_is_found_by_all_its_filters(
    tenants: Tenants,
    database: Database,
    mine: pb.CreateOrganizationResponse,
    other: pb.CreateOrganizationResponse,
) -> None:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO users (id, email, name) VALUES ('user-1', 'A@Example.com', 'A')")
    of, project_id = mine.organization.id, mine.project.id
    await tenants.set_spend_limit(
        pb.SetSpendLimitRequest(
            organization_id=of,
            spend_limit=pb.SpendLimit(threshold_cents=1),
            actor=Actor(key_id="key_2", owner_id="user-2"),
        )
    )
    made = await events(tenants, of)
    assert [event.type for event in made] == ["organization.created", "project.created", "spend_limit.updated"]
    whole, project, spend = made
    assert all(event.id.startswith("audit_log-") for event in made)
    assert (project.project_id, project.project_name, project.resource_id) == (
        project_id,
        "Default project",
        project_id,
    )
    assert (whole.project_id, whole.project_name, whole.resource_id) == ("", "", of)
    from_s = whole.effective_at
    filters: list[tuple[dict[str, Any], list[pb.AuditEvent]]] = [
        ({"effective_from": from_s, "effective_until": spend.effective_at + 1}, made),
        ({"effective_from": spend.effective_at + 1}, []),
        ({"effective_until": from_s}, []),
        ({"effective_from": -(2**63), "effective_until": 2**63 - 1}, made),
        ({"project_ids": [project_id, "none", "a\0"]}, [project]),
        ({"project_ids": [other.project.id]}, []),
        ({"types": ["project.created", "spend_limit.updated"]}, [project, spend]),
        ({"actor_ids": ["key_2"]}, [spend]),
        ({"actor_ids": ["user-2", "key_1"]}, made),
        ({"actor_emails": ["a@example.COM"]}, [whole, project]),
        ({"actor_emails": ["b@example.com", "a\0"]}, []),
        ({"resource_ids": [of]}, [whole, spend]),
        ({"resource_ids": ["a\0"]}, []),
        ({"types": ["project.created"], "actor_ids": ["key_2"]}, []),
    ]
    for asked, expected in filters:
        assert await events(tenants, of, **asked) == expected, asked


async def test_the_audit_log_by_pages(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    for number in range(5):
        await tenants.create_project(pb.CreateProjectRequest(organization_id=of, name=f"P{number}", actor=ACTOR))
    made = (await events(tenants, of))[::-1]
    seen: list[pb.AuditEvent] = []
    has_more = True
    while has_more:
        page = Page(limit=2, after=seen[-1].id if seen else "")
        found = await tenants.list_audit_events(pb.ListAuditEventsRequest(organization_id=of, page=page))
        seen += found.events
        has_more = found.has_more
    assert seen == made


async def test_who_reads_the_audit_log_as_it_grows_misses_nothing(
    tenants: Tenants, database: Database, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse
) -> None:
    of = mine.organization.id
    last = (await events(tenants, of))[-1].id

    async def change(kind: str, organization_id: str) -> None:
        async with database.connection() as connection:
            await audit(connection, kind, organization_id, ACTOR)

    async with database.connection() as connection:
        # It began before the others and ends after them.
        await audit(connection, "late", of, ACTOR)
        change_mine = asyncio.create_task(change("early", of))
        await change("foreign", other.organization.id)
        await asyncio.wait((change_mine,), timeout=0.2)
        request = pb.ListAuditEventsRequest(organization_id=of, page=Page(limit=1, ascending=True, after=last))
        seen = list((await tenants.list_audit_events(request)).events)
    await change_mine
    request.page.after = seen[-1].id if seen else last
    request.page.limit = 100
    seen += (await tenants.list_audit_events(request)).events
    assert [event.type for event in seen] == ["late", "early"]
