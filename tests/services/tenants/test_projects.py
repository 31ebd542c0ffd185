"""Projects: what a change leaves alone, and which one the platform takes for its own."""

from typing import Any

from modelplane.tenants.v1 import tenants_pb2 as pb
from services.tenants.service import Tenants
from tests.services.tenants.conftest import events


async def test_bootstrap_prefers_a_project_that_can_have_keys(tenants: Tenants) -> None:
    first = await tenants.bootstrap(pb.BootstrapRequest())
    of = first.organization_id
    await tenants.archive_project(pb.ArchiveProjectRequest(organization_id=of, project_id=first.project_id))
    assert (await tenants.bootstrap(pb.BootstrapRequest())).project_id == first.project_id
    project = (await tenants.create_project(pb.CreateProjectRequest(organization_id=of, name="Next"))).project
    assert (await tenants.bootstrap(pb.BootstrapRequest())).project_id == project.id


async def test_what_is_not_set_stays(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    project = mine.project
    of: dict[str, Any] = {"organization_id": project.organization_id, "project_id": project.id}
    await tenants.update_project(pb.UpdateProjectRequest(**of, ip_ranges=pb.IpRanges(blocks=["127.0.0.1"]), weight=3))
    count = len(await events(tenants, project.organization_id))
    same = (await tenants.update_project(pb.UpdateProjectRequest(**of))).project
    assert (same.name, same.weight, list(same.ip_ranges)) == (project.name, 3, ["127.0.0.1/32"])
    assert len(await events(tenants, project.organization_id)) == count
    open_again = (await tenants.update_project(pb.UpdateProjectRequest(**of, ip_ranges=pb.IpRanges()))).project
    assert (open_again.weight, list(open_again.ip_ranges)) == (3, [])
