"""/v1/organization/audit_logs: every change that was made in the organisation, by whom and when."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.members.v1.members_api import MembersService
from modelplane.members.v1.members_pb2 import GetUserRequest
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import AuditEvent, ListAuditEventsRequest
from services.faults import NotFound
from services.gateway.calls import Call
from services.gateway.organization.paging import flag, listed, number, parse_listing

ARRAYS: Final = ("project_ids", "event_types", "actor_ids", "actor_emails", "resource_ids")
BOUNDS: Final = ("effective_at[gt]", "effective_at[gte]", "effective_at[lt]", "effective_at[lte]")
OWN: Final = {"tenant_only": flag, **dict.fromkeys(BOUNDS, number)}


class AuditLogs:
    """The endpoint."""

    def __init__(self, tenants: TenantsService, members: MembersService) -> None:
        self._tenants = tenants
        self._members = members

    async def list_all(self, call: Call) -> None:
        """A page, the newest first. Events above organisations, which `tenant_only` asks for, there are none."""
        organization_id = call.caller.organization_id
        listing = parse_listing(call.query, ARRAYS, OWN)
        if listing.values.get("tenant_only"):
            await call.respond(200, listed((), False))
            return
        since, until = bounds(listing.values)
        found = await self._tenants.list_audit_events(
            ListAuditEventsRequest(
                organization_id=organization_id,
                effective_from=since,
                effective_until=until,
                project_ids=listing.arrays["project_ids"],
                types=listing.arrays["event_types"],
                actor_ids=listing.arrays["actor_ids"],
                actor_emails=listing.arrays["actor_emails"],
                resource_ids=listing.arrays["resource_ids"],
                page=listing.page,
            )
        )
        emails = await self._emails(organization_id, (event.actor.owner_id for event in found.events))
        await call.respond(200, listed([event_object(event, emails) for event in found.events], found.has_more))

    async def _emails(self, organization_id: str, user_ids: Iterable[str]) -> dict[str, str]:
        """By id, of those who are still members."""
        wanted = [user_id for user_id in dict.fromkeys(user_ids) if user_id]

        async def email(user_id: str) -> str:
            try:
                request = GetUserRequest(organization_id=organization_id, user_id=user_id)
                return (await self._members.get_user(request)).user.email
            except NotFound:
                return ""

        # One after the other: a page may have a hundred actors, and all together would take every connection.
        return {user_id: await email(user_id) for user_id in wanted}


def bounds(values: Mapping[str, int]) -> tuple[int, int]:
    """The first second that is meant and the first one after it that is not; 0 for no bound."""
    since = max(values.get("effective_at[gt]", -1) + 1, values.get("effective_at[gte]", 0))
    ends = [
        values[name] + extra for name, extra in (("effective_at[lt]", 0), ("effective_at[lte]", 1)) if name in values
    ]
    # Nothing is from before the first second of the epoch.
    return since, max(1, min(ends)) if ends else 0


def event_object(event: AuditEvent, emails: Mapping[str, str]) -> dict[str, Any]:
    """As OpenAI's API shows an event: its own part is under the name of its type."""
    shown: dict[str, Any] = {"id": event.id, "type": event.type, "effective_at": event.effective_at}
    if event.project_id:
        shown["project"] = {"id": event.project_id, "name": event.project_name}
    return {**shown, "actor": _actor(event.actor, emails), event.type: msgspec.json.decode(event.details_json)}


def _actor(actor: Actor, emails: Mapping[str, str]) -> dict[str, Any]:
    """A key and whom it belongs to; without a key, the program that the change was made with."""
    if not actor.key_id:
        session = {"ip_address": actor.ip_address, "user_agent": actor.user_agent}
        return {"type": "session", "session": {name: value for name, value in session.items() if value}}
    key: dict[str, Any] = {"id": actor.key_id}
    if actor.owner_id:
        user = {"id": actor.owner_id}
        if email := emails.get(actor.owner_id):
            user["email"] = email
        key |= {"type": "user", "user": user}
    return {"type": "api_key", "api_key": key}
