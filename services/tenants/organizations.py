"""Makes and shows organisations.

Keeps true: an organisation has a project from its first moment; however many processes start at once on an empty
database, there is one first organisation.
"""

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.tenants.v1 import tenants_pb2 as pb
from services import asked, telemetry
from services.identifiers import new_id
from services.tenants import checks, lookups, tiers
from services.tenants.store import Records, TenantsStore

FIRST_NAME = "Default organization"
PROJECT_NAME = "Default project"

log = telemetry.logger(__name__)


def platform() -> Actor:
    """Who acts when nobody asked."""
    return Actor(user_agent="modelplane")


class Organizations:
    """The contract's part about organisations."""

    def __init__(self, store: TenantsStore) -> None:
        self._store = store

    async def bootstrap(self, request: pb.BootstrapRequest, /) -> pb.BootstrapResponse:
        """The first organisation is the platform's own: it is not to be throttled like a stranger."""
        async with self._store.transaction() as records:
            await records.organizations.be_first()
            if (oldest := await records.organizations.oldest()) is not None:
                return pb.BootstrapResponse(created=False, organization_id=oldest[0], project_id=oldest[1])
            organization, project = await _add(records, FIRST_NAME, platform(), pinned_tier=tiers.HIGHEST)
        log.info("first organisation made", organization_id=organization.id, project_id=project.id)
        return pb.BootstrapResponse(created=True, organization_id=organization.id, project_id=project.id)

    async def create_organization(self, request: pb.CreateOrganizationRequest, /) -> pb.CreateOrganizationResponse:
        checks.name(request.name)
        async with self._store.transaction() as records:
            organization, project = await _add(records, request.name, request.actor)
        return pb.CreateOrganizationResponse(organization=organization, project=project)

    async def get_organization(self, request: pb.GetOrganizationRequest, /) -> pb.GetOrganizationResponse:
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
        return pb.GetOrganizationResponse(organization=organization)

    async def list_organizations(self, request: pb.ListOrganizationsRequest, /) -> pb.ListOrganizationsResponse:
        asked.page(request.page)
        async with self._store.transaction() as records:
            organizations, has_more = await records.organizations.page(request.page)
        return pb.ListOrganizationsResponse(organizations=organizations, has_more=has_more)


async def add_project(
    records: Records, organization_id: str, name: str, actor: Actor, external_key_id: str = ""
) -> pb.Project:
    """For an organisation that there is; the values are checked."""
    project = await records.projects.add(
        pb.Project(id=new_id("proj_"), organization_id=organization_id, name=name, external_key_id=external_key_id)
    )
    data = {"name": name, "title": name} | ({"external_key_id": external_key_id} if external_key_id else {})
    await records.audit("project.created", organization_id, actor, project.id, project_id=project.id, data=data)
    return project


async def _add(
    records: Records, name: str, actor: Actor, *, pinned_tier: int | None = None
) -> tuple[pb.Organization, pb.Project]:
    pinned = pinned_tier is not None
    organization = await records.organizations.add(new_id("org-"), name, pinned_tier or 0, pinned)
    data = {"name": name, "title": name, "usage_tier": organization.usage_tier, "tier_pinned": pinned}
    await records.audit("organization.created", organization.id, actor, organization.id, data=data)
    return organization, await add_project(records, organization.id, PROJECT_NAME, actor)
