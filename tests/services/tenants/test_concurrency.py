"""What happens at the same time happens one after the other, or not at all."""

import asyncio
from typing import Any

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.limits.v1 import limits_pb2 as limits
from modelplane.tenants.v1 import tenants_pb2 as pb
from services.faults import Fault
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from tests.services.tenants.conftest import events


async def test_processes_that_start_at_once_make_one_organization(database: Database) -> None:
    processes = [Tenants(TenantsStore(database), TenantsSettings()) for _ in range(8)]
    answers = await asyncio.gather(*(process.bootstrap(pb.BootstrapRequest()) for process in processes))
    assert [answer.created for answer in answers].count(True) == 1
    assert len({(answer.organization_id, answer.project_id) for answer in answers}) == 1
    listed = await processes[0].list_organizations(pb.ListOrganizationsRequest(page=Page(limit=100)))
    assert len(listed.organizations) == 1


async def test_a_project_is_archived_once(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    request = pb.ArchiveProjectRequest(organization_id=mine.organization.id, project_id=mine.project.id)
    answers = await asyncio.gather(*(tenants.archive_project(request) for _ in range(10)))
    assert len({answer.project.archived_at for answer in answers}) == 1
    made = [event.type for event in await events(tenants, mine.organization.id)]
    assert made.count("project.archived") == 1


async def test_changes_of_different_fields_do_not_undo_one_another(
    tenants: Tenants, mine: pb.CreateOrganizationResponse
) -> None:
    of: dict[str, Any] = {"organization_id": mine.organization.id, "project_id": mine.project.id}
    await asyncio.gather(
        tenants.update_project(pb.UpdateProjectRequest(**of, name="Renamed")),
        tenants.update_project(pb.UpdateProjectRequest(**of, weight=7)),
        tenants.update_project(pb.UpdateProjectRequest(**of, ip_ranges=pb.IpRanges(blocks=["10.0.0.0/8"]))),
    )
    project = (await tenants.get_project(pb.GetProjectRequest(**of))).project
    assert (project.name, project.weight, list(project.ip_ranges)) == ("Renamed", 7, ["10.0.0.0/8"])


async def test_nothing_changes_behind_an_archiving(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    of: dict[str, Any] = {"organization_id": mine.organization.id, "project_id": mine.project.id}
    await asyncio.gather(
        *(tenants.update_project(pb.UpdateProjectRequest(**of, weight=weight)) for weight in range(1, 10)),
        tenants.archive_project(pb.ArchiveProjectRequest(**of)),
        *(tenants.update_project(pb.UpdateProjectRequest(**of, weight=weight)) for weight in range(10, 20)),
        return_exceptions=True,
    )
    assert [event.type for event in await events(tenants, mine.organization.id)][-1] == "project.archived"


async def test_limits_set_in_any_order_do_not_block_one_another(
    tenants: Tenants, mine: pb.CreateOrganizationResponse
) -> None:
    overrides = [
        limits.Override(scope=limits.SCOPE_ORGANIZATION, model=f"m{number}", dimension=dimension, limit=number)
        for number in range(30)
        for dimension in (limits.DIMENSION_REQUESTS_PER_MINUTE, limits.DIMENSION_TOKENS_PER_DAY)
    ]
    of = mine.organization.id
    forwards = pb.SetLimitsRequest(organization_id=of, overrides=overrides)
    backwards = pb.SetLimitsRequest(organization_id=of, overrides=reversed(overrides))
    clearing = pb.SetLimitsRequest(organization_id=of, overrides=overrides, clear=True)
    await asyncio.gather(*(tenants.set_limits(one) for one in (forwards, backwards, clearing, forwards) * 3))
    found = await tenants.get_limits(pb.GetLimitsRequest(organization_id=of))
    assert len(found.overrides) in (0, len(overrides))


async def test_an_alert_is_deleted_once(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    alert = pb.SpendAlert(email_recipients=["a@example.com"])
    made = (await tenants.put_spend_alert(pb.PutSpendAlertRequest(organization_id=of, spend_alert=alert))).spend_alert
    request = pb.DeleteSpendAlertRequest(organization_id=of, spend_alert_id=made.id)
    answers = await asyncio.gather(*(tenants.delete_spend_alert(request) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, Fault) for answer in answers) == 4
