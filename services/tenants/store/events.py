"""The queries of the audit log; what writes it is `services.storage.audit`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.tenants.v1.tenants_pb2 import AuditEvent, ListAuditEventsRequest
from services.asked import has_nul
from services.storage.pages import Listing, page

_COLUMNS: LiteralString = (
    "id, type, effective_at, project_id, project_name, resource_id, details_json, actor_key_id, actor_redacted_key, "
    "actor_owner_id, actor_ip_address, actor_user_agent, request_id"
)
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


class EventRecords:
    """The audit log as one transaction sees it."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def page(self, asked: ListAuditEventsRequest) -> tuple[list[AuditEvent], bool]:
        """What fits all filters, and whether there is more."""
        filters: list[LiteralString] = []
        values: dict[str, Any] = {"organization_id": asked.organization_id}

        def narrow(name: str, condition: LiteralString, wanted: Sequence[str]) -> None:
            if wanted:
                filters.append(condition)
                # Nothing has a NUL, and the database cannot be asked for one.
                values[name] = [text for text in wanted if not has_nul(text)]

        if asked.effective_from:
            filters.append("effective_at >= to_timestamp(%(effective_from)s)")
            values["effective_from"] = _time(asked.effective_from)
        if asked.effective_until:
            filters.append("effective_at < to_timestamp(%(effective_until)s)")
            values["effective_until"] = _time(asked.effective_until)
        narrow("projects", "project_id = ANY(%(projects)s)", asked.project_ids)
        narrow("types", "type = ANY(%(types)s)", asked.types)
        narrow("actors", "(actor_key_id = ANY(%(actors)s) OR actor_owner_id = ANY(%(actors)s))", asked.actor_ids)
        narrow(
            "emails",
            "actor_owner_id IN (SELECT users.id FROM users JOIN unnest(%(emails)s::text[]) AS given "
            "ON lower(email) = lower(given))",
            asked.actor_emails,
        )
        narrow("resources", "resource_id = ANY(%(resources)s)", asked.resource_ids)
        mine: LiteralString = "organization_id = %(organization_id)s"
        # An event that does not fit is a cursor still: a reader may change what it asks for as it goes.
        listing = Listing(_COLUMNS, "audit_events", [mine], at="effective_at", live=filters)
        rows, has_more = await page(self._connection, listing, values, asked.page)
        return [_event(row) for row in rows], has_more


def _time(seconds: int) -> int:
    """A time that the database knows."""
    return max(0, min(seconds, _LAST_SECOND))


def _event(row: TupleRow) -> AuditEvent:
    (event_id, kind, effective_at, project_id, project_name, resource_id, details_json, *actor) = row
    key_id, redacted_key, owner_id, ip_address, user_agent, request_id = actor
    return AuditEvent(
        id=event_id,
        type=kind,
        effective_at=int(effective_at.timestamp()),
        actor=Actor(
            key_id=key_id,
            redacted_key=redacted_key,
            owner_id=owner_id,
            ip_address=ip_address,
            user_agent=user_agent,
            request_id=request_id,
        ),
        project_id=project_id,
        project_name=project_name,
        resource_id=resource_id,
        details_json=bytes(details_json),
    )
