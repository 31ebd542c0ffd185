"""Every endpoint there is, with what a call of it needs: an object of every kind to name, and a body.

The endpoints come from the gateway's own table. What a path leaves open must be in `Ids`, what a body must say in
`BODIES`, and an endpoint for everybody in `OPEN`.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from psycopg import sql

from modelplane.auth.v1 import auth_pb2
from modelplane.completions.v1.completions_pb2 import StoredCompletion
from modelplane.keys.v1.keys_pb2 import CreateKeyRequest, CreateServiceAccountRequest
from modelplane.members.v1 import members_pb2
from modelplane.tenants.v1 import tenants_pb2
from services.gateway.application import Application
from services.scopes import SCOPES
from tests.services.gateway.conftest import MODEL
from tests.services.gateway.organization.conftest import Console, Organization

# For everybody.
OPEN = {"/healthz", "/readyz", "/metrics", "/v1/webhooks/payments"}
# Models belong to nobody; a project may see those that it may use.
NOBODYS = {"models.retrieve"}

SPEND: dict[str, Any] = {"threshold_amount": 100, "currency": "USD", "interval": "month"}
ALERT = {**SPEND, "notification_channel": {"type": "email", "recipients": ["a@example.com"]}}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
# By the name of the operation; those that are not here need none.
BODIES: dict[str, Any] = {
    "chat.completions": CHAT,
    "chat.completions.update": {"metadata": {"k": "v"}},
    "completions": {"model": MODEL, "prompt": "hello"},
    "organization.admin_api_keys.create": {"name": "new"},
    "organization.invites.create": {"email": "new@example.com", "role": "reader", "projects": []},
    "organization.projects.create": {"name": "new"},
    "organization.projects.model_permissions.update": {"mode": "allow_list", "model_ids": ["small"]},
    "organization.projects.rate_limits.update": {"max_requests_per_1_minute": 1},
    "organization.projects.service_accounts.create": {"name": "new"},
    "organization.projects.service_accounts.update": {"name": "new"},
    "organization.projects.spend_alerts.create": ALERT,
    "organization.projects.spend_alerts.update": ALERT,
    "organization.projects.spend_limit.update": SPEND,
    "organization.projects.update": {"name": "new"},
    "organization.projects.users.create": {"email": "second@example.com", "role": "member"},
    "organization.projects.users.update": {"role": "viewer"},
    "organization.spend_alerts.create": ALERT,
    "organization.spend_alerts.update": ALERT,
    "organization.spend_limit.update": SPEND,
    "organization.users.update": {"role": "viewer"},
}


@dataclasses.dataclass
class Ids:
    """Of an object of every kind, all of one organisation: by the names that paths have for them."""

    project_id: str
    user_id: str
    invite_id: str
    api_key_id: str
    key_id: str
    service_account_id: str
    completion_id: str
    # Of the organisation; those of projects have one of their own.
    alert_id: str
    project_alert_id: str
    invoice_id: str
    model: str = "small"


class Endpoint(NamedTuple):
    """A row of the table."""

    method: str
    path: str
    operation: str
    scope: str

    @property
    def parameters(self) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", self.path))

    @property
    def is_read(self) -> bool:
        return self.scope.endswith(".read")

    def fill(self, ids: dict[str, str]) -> str:
        """The path. Raises KeyError for a part that nobody has thought of."""
        given = ids | ({"alert_id": ids["project_alert_id"]} if "project_id" in self.parameters else {})
        path = self.path.format_map(given | ({"model": MODEL} if self.operation == "models.retrieve" else {}))
        return f"{path}?start_time=1" if self.operation.startswith("organization.usage.") else path

    @property
    def place_in_a_life(self) -> tuple[bool, bool, int]:
        """Reads come first, then changes, then ends, that of the project last and those of parts before the whole."""
        is_end = self.method == "DELETE" or self.operation.endswith(".archive")
        return is_end, self.operation.endswith(".archive"), -self.path.count("/") if is_end else 0


def endpoints(console: Console) -> list[Endpoint]:
    """All that somebody must be let in for, the reading ones first."""
    application = cast(Application, console.edge.gateway._server.config.app)
    for path, methods in application.routes.items():
        for route in methods.values():
            assert bool(route.scope) == (path not in OPEN), f"{path} is open to everybody"
    found = [
        Endpoint(method, path, route.operation, route.scope)
        for path, methods in application.routes.items()
        for method, route in methods.items()
        if route.scope
    ]
    return sorted(found, key=lambda endpoint: endpoint.place_in_a_life)


async def furnish(console: Console, place: Organization) -> Ids:
    """An object of every kind."""
    organization: Any = {"organization_id": place.id}
    project: Any = {**organization, "project_id": place.project_id}
    members, tenants, keys = console.members, console.tenants, console.keys
    # The second one is a member of both organisations.
    emails = (f"owner-{place.id}@example.com", "second@example.com", f"third-{place.id}@example.com")
    users = [
        await members.add_user(members_pb2.AddUserRequest(**organization, email=email, role="owner"))
        for email in emails
    ]
    user_id = users[2].user.id
    await members.add_project_user(members_pb2.AddProjectUserRequest(**project, user_id=user_id, role="member"))
    invited = await members.create_invite(
        members_pb2.CreateInviteRequest(**organization, email=f"invited-{place.id}@example.com", role="reader")
    )
    alert = tenants_pb2.SpendAlert(threshold_cents=5, email_recipients=["a@example.com"])
    alerts = [
        (await tenants.put_spend_alert(tenants_pb2.PutSpendAlertRequest(**owner, spend_alert=alert))).spend_alert.id
        for owner in (organization, project)
    ]
    for owner in (organization, project):
        limit = tenants_pb2.SpendLimit(threshold_cents=7)
        await tenants.set_spend_limit(tenants_pb2.SetSpendLimitRequest(**owner, spend_limit=limit))
    account = await keys.create_service_account(CreateServiceAccountRequest(**project, name="robot", role="member"))
    kinds = ((auth_pb2.KEY_KIND_PROJECT, project), (auth_pb2.KEY_KIND_ADMIN, organization))
    made = [
        (await keys.create_key(CreateKeyRequest(**owner, kind=kind, name="key", owner_id=user_id))).key.id
        for kind, owner in kinds
    ]
    invoice_id = f"inv_{place.id}"
    async with console.database.connection() as connection:
        await connection.execute(
            "INSERT INTO invoices VALUES (%s, %s, '2026-01-01', now(), 'its name', '[]', 0, 0)", (invoice_id, place.id)
        )
    completion_id = f"chatcmpl-{place.id}"
    console.edge.completions.stored[completion_id] = StoredCompletion(
        **project, id=completion_id, model=MODEL, completion_json=b'{"id":"x"}', request_messages_json=b"[]"
    )
    return Ids(
        project_id=place.project_id,
        user_id=user_id,
        invite_id=invited.invite.id,
        api_key_id=made[0],
        key_id=made[1],
        service_account_id=account.service_account.id,
        completion_id=completion_id,
        alert_id=alerts[0],
        project_alert_id=alerts[1],
        invoice_id=invoice_id,
    )


async def state(console: Console, organization_id: str) -> dict[str, list[str]]:
    """Everything that is kept of an organisation."""
    kept: dict[str, list[str]] = {}
    async with console.database.connection() as connection:
        tables = await connection.execute(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'organization_id' "
            "AND table_schema = 'public' UNION SELECT 'organizations'"
        )
        for (table,) in await tables.fetchall():
            column = "id" if table == "organizations" else "organization_id"
            query = sql.SQL("SELECT t::text FROM {} AS t WHERE {} = %s ORDER BY 1").format(
                sql.Identifier(table), sql.Identifier(column)
            )
            kept[table] = [row[0] for row in await (await connection.execute(query, (organization_id,))).fetchall()]
    stored = console.edge.completions.stored.values()
    kept["completions"] = [str(one) for one in stored if one.organization_id == organization_id]
    assert all(kept[name] for name in ("api_keys", "audit_events", "completions", "service_accounts", "spend_alerts"))
    return kept


class Walk:
    """Two organisations with an object of every kind in each; the second one has no business in the first."""

    def __init__(self, console: Console, mine: Organization, other: Organization, ids: Ids, others: Ids) -> None:
        self.console = console
        self.mine = mine
        self.other = other
        self.ids = dataclasses.asdict(ids)
        self.others = dataclasses.asdict(others)
        self.endpoints = endpoints(console)

    def key(self, place: Organization, endpoint: Endpoint, **principal: Any) -> str:
        """A key of the right kind for the endpoint, and restricted as `principal` says."""
        whole = place.admin_key if SCOPES[endpoint.scope].administrative else place.project_key
        if not principal:
            return whole
        known = self.console.edge.auth.principals[whole]
        fields = {field.name: value for field, value in known.ListFields()}
        return self.console.key(f"{whole}-restricted", **{**fields, **principal})

    async def call(self, key: str, endpoint: Endpoint, ids: dict[str, str]) -> tuple[int, str | None, str]:
        """Status, code of the fault, and the text of the answer."""
        body = BODIES.get(endpoint.operation)
        response = await self.console.ask(key, endpoint.method, endpoint.fill(ids), body)
        code = response.json()["error"]["code"] if response.status_code != 200 else None
        return response.status_code, code, response.text

    def secrets(self) -> Iterator[str]:
        """What nobody of the second organisation may ever read."""
        yield self.mine.id
        yield from (value for name, value in self.ids.items() if name != "model")


async def begin(console: Console, mine: Organization, other: Organization) -> Walk:
    """With everything in its place."""
    await console.edge.add_replica()
    others = await furnish(console, other)
    return Walk(console, mine, other, await furnish(console, mine), others)
