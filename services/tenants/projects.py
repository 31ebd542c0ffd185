"""Makes, shows, changes and archives projects.

Keeps true: an archived project stays as it is; another organisation's project is not there.
"""

from typing import Any, Final

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.auth.v1.auth_pb2 import ModelPolicy
from modelplane.tenants.v1 import tenants_pb2 as pb
from services import asked
from services.faults import InvalidRequest
from services.tenants import checks, lookups
from services.tenants.organizations import add_project
from services.tenants.store import Records, TenantsStore

# As the API calls them.
MODES: Final = {ModelPolicy.MODE_ALLOW_LIST: "allow_list", ModelPolicy.MODE_DENY_LIST: "deny_list"}


class Projects:
    """The contract's part about projects."""

    def __init__(self, store: TenantsStore) -> None:
        self._store = store

    async def create_project(self, request: pb.CreateProjectRequest, /) -> pb.CreateProjectResponse:
        checks.name(request.name)
        asked.line(request.external_key_id, "external_key_id")
        async with self._store.transaction() as records:
            await lookups.organization(records, request.organization_id)
            project = await add_project(
                records, request.organization_id, request.name, request.actor, request.external_key_id
            )
        return pb.CreateProjectResponse(project=project)

    async def get_project(self, request: pb.GetProjectRequest, /) -> pb.GetProjectResponse:
        async with self._store.transaction() as records:
            project = await lookups.project(records, request.organization_id, request.project_id)
        return pb.GetProjectResponse(project=project)

    async def list_projects(self, request: pb.ListProjectsRequest, /) -> pb.ListProjectsResponse:
        asked.page(request.page)
        if asked.has_nul(request.organization_id):
            return pb.ListProjectsResponse()
        async with self._store.transaction() as records:
            projects, has_more = await records.projects.page(
                request.organization_id, request.include_archived, request.page
            )
        return pb.ListProjectsResponse(projects=projects, has_more=has_more)

    async def update_project(self, request: pb.UpdateProjectRequest, /) -> pb.UpdateProjectResponse:
        async with self._store.transaction() as records:
            project = await lookups.active_project(records, request.organization_id, request.project_id)
            if changes := _change(project, request):
                project = await records.projects.update(project)
                await _note_update(records, project, request.actor, changes)
        return pb.UpdateProjectResponse(project=project)

    async def archive_project(self, request: pb.ArchiveProjectRequest, /) -> pb.ArchiveProjectResponse:
        async with self._store.transaction() as records:
            project = await lookups.project(records, request.organization_id, request.project_id, locked=True)
            if not project.archived_at:
                project = await records.projects.archive(project)
                await records.audit(
                    "project.archived", project.organization_id, request.actor, project.id, project_id=project.id
                )
        return pb.ArchiveProjectResponse(project=project)

    async def set_model_policy(self, request: pb.SetModelPolicyRequest, /) -> pb.SetModelPolicyResponse:
        policy, permissions = ModelPolicy(), None
        if mode := request.models.mode:
            if mode not in MODES:
                raise InvalidRequest("invalid_value", f"There is no mode {mode}.", param="mode")
            policy = ModelPolicy(mode=mode, models=checks.models(request.models.models))
            permissions = {"mode": MODES[mode], "model_ids": list(policy.models)}
        async with self._store.transaction() as records:
            project = await lookups.active_project(records, request.organization_id, request.project_id)
            project.models.CopyFrom(policy)
            project = await records.projects.update(project)
            await _note_update(records, project, request.actor, {"model_permissions": permissions})
        return pb.SetModelPolicyResponse(project=project)


def _change(project: pb.Project, request: pb.UpdateProjectRequest) -> dict[str, Any]:
    """Puts what is set into the project; returns it as the audit log shows it."""
    changes: dict[str, Any] = {}
    if request.HasField("name"):
        changes["title"] = project.name = checks.name(request.name)
    if request.HasField("external_key_id"):
        changes["external_key_id"] = project.external_key_id = asked.line(request.external_key_id, "external_key_id")
    if request.HasField("weight"):
        changes["weight"] = project.weight = asked.number(request.weight, 1, checks.MOST_WEIGHT, "weight")
    if request.HasField("ip_ranges"):
        changes["ip_ranges"] = project.ip_ranges[:] = checks.blocks(request.ip_ranges.blocks)
    return changes


async def _note_update(records: Records, project: pb.Project, actor: Actor, changes: dict[str, Any]) -> None:
    await records.audit(
        "project.updated",
        project.organization_id,
        actor,
        project.id,
        project_id=project.id,
        changes_requested=changes,
    )
