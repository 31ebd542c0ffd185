"""The routes of the admin API, which are a part of the table of the gateway's endpoints."""

from typing import NamedTuple

from modelplane.keys.v1.keys_api import KeysService
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.members.v1.members_api import MembersService
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.reports.v1.reports_api import ReportsService
from modelplane.tenants.v1.tenants_api import TenantsService
from services.gateway.application import Route, Routes
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.admin_keys import AdminKeys
from services.gateway.organization.audit_logs import AuditLogs
from services.gateway.organization.costs import Costs
from services.gateway.organization.credits import Credits
from services.gateway.organization.invites import Invites
from services.gateway.organization.invoices import Invoices
from services.gateway.organization.model_permissions import ModelPermissions
from services.gateway.organization.people import READ, WRITE, people_routes
from services.gateway.organization.project_keys import ProjectKeys
from services.gateway.organization.project_users import ProjectUsers
from services.gateway.organization.projects import Projects
from services.gateway.organization.rate_limits import RateLimits
from services.gateway.organization.service_accounts import ServiceAccounts
from services.gateway.organization.spend_alerts import SpendAlerts
from services.gateway.organization.spend_limits import SpendLimits
from services.gateway.organization.usage import REPORTS, UsageReports
from services.gateway.organization.users import Users

AUDIT = "api.audit_logs.read"
USAGE = "api.usage.read"
ORGANIZATION = "/v1/organization"
PROJECT = f"{ORGANIZATION}/projects/{{project_id}}"


class Administered(NamedTuple):
    """The services that the admin API is a face of. `actor_of` says who makes a call, for their audit log."""

    tenants: TenantsService
    members: MembersService
    keys: KeysService
    ratelimit: RateLimitService
    ledger: LedgerService
    reports: ReportsService
    actor_of: ActorOf


def organization_routes(to: Administered) -> Routes:
    """All of them."""
    actor_of = to.actor_of
    people = people_routes(
        Users(to.members, actor_of), ProjectUsers(to.members, actor_of), Invites(to.members, to.tenants, actor_of)
    )
    audit_logs = AuditLogs(to.tenants, to.members)
    return {
        **people,
        **_projects(Projects(to.tenants, actor_of), ModelPermissions(to.tenants, actor_of)),
        **_rate_limits(RateLimits(to.tenants, to.ratelimit, actor_of)),
        **_project_keys(ProjectKeys(to.keys, actor_of)),
        **_service_accounts(ServiceAccounts(to.keys, actor_of)),
        **_admin_keys(AdminKeys(to.keys, actor_of)),
        **_money(Credits(to.ledger), Invoices(to.ledger)),
        **_reports(UsageReports(to.reports), Costs(to.reports)),
        **_spend(SpendLimits(to.tenants, actor_of), SpendAlerts(to.tenants, actor_of)),
        f"{ORGANIZATION}/audit_logs": {"GET": Route(audit_logs.list_all, "organization.audit_logs.list", AUDIT)},
    }


def _projects(projects: Projects, permissions: ModelPermissions) -> Routes:
    name = "organization.projects"
    return {
        f"{ORGANIZATION}/projects": {
            "GET": Route(projects.list_all, f"{name}.list", READ),
            "POST": Route(projects.create, f"{name}.create", WRITE),
        },
        PROJECT: {
            "GET": Route(projects.get, f"{name}.retrieve", READ),
            "POST": Route(projects.update, f"{name}.update", WRITE),
        },
        f"{PROJECT}/archive": {"POST": Route(projects.archive, f"{name}.archive", WRITE)},
        f"{PROJECT}/model_permissions": {
            "GET": Route(permissions.get, f"{name}.model_permissions.retrieve", READ),
            "POST": Route(permissions.update, f"{name}.model_permissions.update", WRITE),
            "DELETE": Route(permissions.delete, f"{name}.model_permissions.delete", WRITE),
        },
    }


def _rate_limits(limits: RateLimits) -> Routes:
    name = "organization.projects.rate_limits"
    return {
        f"{PROJECT}/rate_limits": {"GET": Route(limits.list_all, f"{name}.list", READ)},
        # The id ends in the name of a model, which may have slashes.
        f"{PROJECT}/rate_limits/rl-{{model}}": {"POST": Route(limits.update, f"{name}.update", WRITE)},
    }


def _project_keys(keys: ProjectKeys) -> Routes:
    name = "organization.projects.api_keys"
    return {
        f"{PROJECT}/api_keys": {"GET": Route(keys.list_all, f"{name}.list", READ)},
        f"{PROJECT}/api_keys/{{api_key_id}}": {
            "GET": Route(keys.get, f"{name}.retrieve", READ),
            "DELETE": Route(keys.delete, f"{name}.delete", WRITE),
        },
    }


def _service_accounts(accounts: ServiceAccounts) -> Routes:
    name = "organization.projects.service_accounts"
    one = f"{PROJECT}/service_accounts/{{service_account_id}}"
    return {
        f"{PROJECT}/service_accounts": {
            "GET": Route(accounts.list_all, f"{name}.list", READ),
            "POST": Route(accounts.create, f"{name}.create", WRITE),
        },
        one: {
            "GET": Route(accounts.get, f"{name}.retrieve", READ),
            "POST": Route(accounts.update, f"{name}.update", WRITE),
            "DELETE": Route(accounts.delete, f"{name}.delete", WRITE),
        },
        f"{one}/api_keys": {"POST": Route(accounts.create_key, f"{name}.api_keys.create", WRITE)},
    }


def _admin_keys(keys: AdminKeys) -> Routes:
    name = "organization.admin_api_keys"
    return {
        f"{ORGANIZATION}/admin_api_keys": {
            "GET": Route(keys.list_all, f"{name}.list", READ),
            "POST": Route(keys.create, f"{name}.create", WRITE),
        },
        f"{ORGANIZATION}/admin_api_keys/{{key_id}}": {
            "GET": Route(keys.get, f"{name}.retrieve", READ),
            "DELETE": Route(keys.delete, f"{name}.delete", WRITE),
        },
    }


def _money(money: Credits, invoices: Invoices) -> Routes:
    """Modelplane's own."""
    return {
        f"{ORGANIZATION}/credits": {"GET": Route(money.balance, "organization.credits.retrieve", USAGE)},
        f"{ORGANIZATION}/prices": {"GET": Route(money.prices, "organization.prices.list", USAGE)},
        f"{ORGANIZATION}/invoices": {"GET": Route(invoices.list_all, "organization.invoices.list", USAGE)},
        f"{ORGANIZATION}/invoices/{{invoice_id}}": {
            "GET": Route(invoices.get, "organization.invoices.retrieve", USAGE),
        },
    }


def _reports(usage: UsageReports, costs: Costs) -> Routes:
    name = f"{ORGANIZATION}/usage"
    routes = {
        f"{name}/{path}": {"GET": Route(usage.endpoint(report), f"organization.usage.{path}", USAGE)}
        for path, report in REPORTS.items()
    }
    return {**routes, f"{ORGANIZATION}/costs": {"GET": Route(costs.get, "organization.usage.costs", USAGE)}}


def _spend(limits: SpendLimits, alerts: SpendAlerts) -> Routes:
    """The same for the organisation and for each of its projects."""
    routes: dict[str, dict[str, Route]] = {}
    for place, name in ((ORGANIZATION, "organization"), (PROJECT, "organization.projects")):
        routes[f"{place}/spend_limit"] = {
            "GET": Route(limits.get, f"{name}.spend_limit.retrieve", READ),
            "POST": Route(limits.update, f"{name}.spend_limit.update", WRITE),
            "DELETE": Route(limits.delete, f"{name}.spend_limit.delete", WRITE),
        }
        routes[f"{place}/spend_alerts"] = {
            "GET": Route(alerts.list_all, f"{name}.spend_alerts.list", READ),
            "POST": Route(alerts.put, f"{name}.spend_alerts.create", WRITE),
        }
        routes[f"{place}/spend_alerts/{{alert_id}}"] = {
            "GET": Route(alerts.get, f"{name}.spend_alerts.retrieve", READ),
            "POST": Route(alerts.put, f"{name}.spend_alerts.update", WRITE),
            "DELETE": Route(alerts.delete, f"{name}.spend_alerts.delete", WRITE),
        }
    return routes
