"""Finds what a call is about, or raises the fault that says that it is not there: another's is not there either."""

from modelplane.tenants.v1.tenants_pb2 import Organization, Project
from services.asked import has_nul
from services.faults import InvalidRequest, NotFound
from services.tenants.store import Records


async def organization(records: Records, organization_id: str, *, locked: bool = False) -> Organization:
    """Raises NotFound. Locked, it stays as it is until the transaction ends."""
    found = None
    if not has_nul(organization_id):
        organizations = records.organizations
        found = await (organizations.lock(organization_id) if locked else organizations.get(organization_id))
    if found is None:
        raise NotFound("organization_not_found", f"No such organization: '{organization_id}'.", param="organization_id")
    return found


async def project(records: Records, organization_id: str, project_id: str, *, locked: bool = False) -> Project:
    """Raises NotFound. Locked, it stays as it is until the transaction ends."""
    found = None
    if not has_nul(organization_id, project_id):
        projects = records.projects
        found = await (projects.lock if locked else projects.get)(organization_id, project_id)
    if found is None:
        raise NotFound("project_not_found", f"No such project: '{project_id}'.", param="project_id")
    return found


async def active_project(records: Records, organization_id: str, project_id: str) -> Project:
    """Locked, so that nobody archives it meanwhile. Raises NotFound or InvalidRequest (project_archived)."""
    found = await project(records, organization_id, project_id, locked=True)
    if found.archived_at:
        raise InvalidRequest(
            "project_archived", f"The project '{project_id}' is archived and cannot be changed.", param="project_id"
        )
    return found


async def owner(records: Records, organization_id: str, project_id: str) -> None:
    """Makes sure of the project or, when none is named, of the organisation. Raises NotFound."""
    if project_id:
        await project(records, organization_id, project_id)
    else:
        await organization(records, organization_id)


async def active_owner(records: Records, organization_id: str, project_id: str) -> None:
    """The same, locked: changes of what it owns happen one after the other. Raises InvalidRequest, too."""
    if project_id:
        await active_project(records, organization_id, project_id)
    else:
        await organization(records, organization_id, locked=True)
