"""`modelplane projects`: the projects of an organisation and what they may use."""

import argparse

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.auth.v1.auth_pb2 import ModelPolicy
from modelplane.tenants.v1.tenants_pb2 import (
    ArchiveProjectRequest,
    CreateProjectRequest,
    IpRanges,
    ListProjectsRequest,
    Project,
    SetModelPolicyRequest,
    UpdateProjectRequest,
)
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands, everything


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane projects` and its verbs."""
    noun = Noun(subcommands, "projects", "the projects of an organization")
    listing = noun.verb("list", "show the projects", list_all)
    listing.add_argument("--archived", action="store_true", help="the archived ones too")
    noun.verb("create", "make a project", create).add_argument("name", help="for people to read")
    noun.verb("archive", "end a project: its keys stop working", archive).add_argument("project_id")
    change = noun.verb("update", "change a project; what is not named stays", update)
    change.add_argument("project_id")
    change.add_argument("--name")
    change.add_argument("--weight", type=int, help="its share when requests wait, relative to other projects")
    change.add_argument(
        "--ip-ranges", nargs="*", metavar="CIDR", help="where its keys may be used from; without blocks anywhere"
    )
    models = change.add_mutually_exclusive_group()
    models.add_argument("--allow-models", nargs="+", metavar="MODEL", help="the only models that it may use")
    models.add_argument(
        "--deny-models", nargs="*", metavar="MODEL", help="models that it may not use; without names it may use all"
    )


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)

    async def fetch(page: Page) -> tuple[list[Project], bool]:
        request = ListProjectsRequest(organization_id=organization_id, include_archived=options.archived, page=page)
        found = await platform.tenants.list_projects(request)
        return list(found.projects), found.has_more

    return [row(project) for project in await everything(fetch, lambda project: project.id)]


async def create(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)
    request = CreateProjectRequest(organization_id=organization_id, name=options.name, actor=ACTOR)
    return row((await platform.tenants.create_project(request)).project)


async def archive(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)
    request = ArchiveProjectRequest(organization_id=organization_id, project_id=options.project_id, actor=ACTOR)
    return row((await platform.tenants.archive_project(request)).project)


async def update(platform: Platform, options: argparse.Namespace) -> Answer:
    """Two changes, and two events in the audit log, when the models are among what is named."""
    place = {"organization_id": await platform.organization(options), "project_id": options.project_id}
    updated = await platform.tenants.update_project(
        UpdateProjectRequest(
            **place,
            name=options.name,
            weight=options.weight,
            ip_ranges=None if options.ip_ranges is None else IpRanges(blocks=options.ip_ranges),
            actor=ACTOR,
        )
    )
    if (policy := _policy(options)) is None:
        return row(updated.project)
    limited = await platform.tenants.set_model_policy(SetModelPolicyRequest(**place, models=policy, actor=ACTOR))
    return row(limited.project)


def _policy(options: argparse.Namespace) -> ModelPolicy | None:
    """What the options say about models; None when they say nothing."""
    if options.allow_models is not None:
        return ModelPolicy(mode=ModelPolicy.MODE_ALLOW_LIST, models=options.allow_models)
    if options.deny_models:
        return ModelPolicy(mode=ModelPolicy.MODE_DENY_LIST, models=options.deny_models)
    return None if options.deny_models is None else ModelPolicy()


def row(project: Project) -> Row:
    """A project as every verb shows it."""
    policy, names = project.models, list(project.models.models)
    return {
        "id": project.id,
        "name": project.name,
        "weight": project.weight,
        "only_models": names if policy.mode == ModelPolicy.MODE_ALLOW_LIST else None,
        "no_models": names if policy.mode == ModelPolicy.MODE_DENY_LIST else None,
        "ip_ranges": list(project.ip_ranges),
        "created": moment(project.created_at),
        "archived": moment(project.archived_at),
    }
