"""The routes of everything about people: users of the organisation and of its projects, and invites."""

from services.gateway.application import Route, Routes
from services.gateway.organization.invites import Invites
from services.gateway.organization.project_users import ProjectUsers
from services.gateway.organization.users import Users

READ = "api.management.read"
WRITE = "api.management.write"


def people_routes(users: Users, project_users: ProjectUsers, invites: Invites) -> Routes:
    """A part of the table of the gateway's endpoints."""
    return {
        "/v1/organization/users": {"GET": Route(users.list_all, "organization.users.list", READ)},
        "/v1/organization/users/{user_id}": {
            "GET": Route(users.get, "organization.users.retrieve", READ),
            "POST": Route(users.update, "organization.users.update", WRITE),
            "DELETE": Route(users.delete, "organization.users.delete", WRITE),
        },
        "/v1/organization/projects/{project_id}/users": {
            "GET": Route(project_users.list_all, "organization.projects.users.list", READ),
            "POST": Route(project_users.create, "organization.projects.users.create", WRITE),
        },
        "/v1/organization/projects/{project_id}/users/{user_id}": {
            "GET": Route(project_users.get, "organization.projects.users.retrieve", READ),
            "POST": Route(project_users.update, "organization.projects.users.update", WRITE),
            "DELETE": Route(project_users.delete, "organization.projects.users.delete", WRITE),
        },
        "/v1/organization/invites": {
            "GET": Route(invites.list_all, "organization.invites.list", READ),
            "POST": Route(invites.create, "organization.invites.create", WRITE),
        },
        "/v1/organization/invites/{invite_id}": {
            "GET": Route(invites.get, "organization.invites.retrieve", READ),
            "DELETE": Route(invites.delete, "organization.invites.delete", WRITE),
        },
    }
