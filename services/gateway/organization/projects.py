"""/v1/organization/projects: the projects of the organisation that the key belongs to."""

from typing import Any, Final

import msgspec

from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import (
    ArchiveProjectRequest,
    CreateProjectRequest,
    GetProjectRequest,
    ListProjectsRequest,
    Project,
    UpdateProjectRequest,
)
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, flag, listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.requests.values import Json, one_of, parse_fields, string, unsupported_value

RESIDENCY: Final = "GLOBAL"
# Of OpenAI's, which keeps data in the region that one names.
REGIONS: Final = (
    "AE_STORAGE",
    "AE_STORAGE_PROCESSING",
    "AU_STORAGE",
    "CA_STORAGE",
    "EU_STORAGE_PROCESSING",
    "GB_STORAGE",
    "IN_STORAGE",
    "JP_STORAGE",
    "KR_STORAGE",
    "SG_STORAGE",
    "US_STORAGE_PROCESSING",
)
BUILT: Final = {"name": string, "external_key_id": string}
_residency = one_of(RESIDENCY, *REGIONS)


class Projects:
    """The endpoints. `actor_of` says who makes a call, for the audit log."""

    def __init__(self, tenants: TenantsService, actor_of: ActorOf) -> None:
        self._tenants = tenants
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the newest first; archived ones only when asked for."""
        listing = parse_listing(call.query, own={"include_archived": flag})
        request = ListProjectsRequest(organization_id=call.caller.organization_id, page=listing.page, **listing.values)
        found = await self._tenants.list_projects(request)
        await call.respond(200, listed([project_object(project) for project in found.projects], found.has_more))

    async def create(self, call: Call) -> None:
        body = await call.body(MOST_BODY_BYTES)
        _, values = parse_fields(body, BUILT, {"residency": check_residency}, (), ("name",))
        created = await self._tenants.create_project(
            CreateProjectRequest(organization_id=call.caller.organization_id, **values, actor=self._actor_of(call))
        )
        await call.respond(200, msgspec.json.encode(project_object(created.project)))

    async def get(self, call: Call) -> None:
        found = await self._tenants.get_project(GetProjectRequest(**project_of(call)))
        await call.respond(200, msgspec.json.encode(project_object(found.project)))

    async def update(self, call: Call) -> None:
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), ())
        request = UpdateProjectRequest(**project_of(call), **values, actor=self._actor_of(call))
        updated = await self._tenants.update_project(request)
        await call.respond(200, msgspec.json.encode(project_object(updated.project)))

    async def archive(self, call: Call) -> None:
        request = ArchiveProjectRequest(**project_of(call), actor=self._actor_of(call))
        archived = await self._tenants.archive_project(request)
        await call.respond(200, msgspec.json.encode(project_object(archived.project)))


def check_residency(path: str, value: Json) -> None:
    """Raises InvalidRequest for every region: the platform is where its operator has put it."""
    region = _residency(path, value)
    if region != RESIDENCY:
        raise unsupported_value(path, region, (RESIDENCY,))


def project_object(project: Project) -> dict[str, Any]:
    """As OpenAI's API shows a project."""
    return {
        "object": "organization.project",
        "id": project.id,
        "name": project.name,
        "created_at": project.created_at,
        "archived_at": project.archived_at or None,
        "status": "archived" if project.archived_at else "active",
        "external_key_id": project.external_key_id or None,
        "residency": RESIDENCY,
    }
