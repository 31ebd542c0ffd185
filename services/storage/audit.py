"""The audit log's one statement, for every store that makes an administrative change.

It runs in the transaction of the change, so that neither is there without the other. An organisation's events are in
the order in which they become visible, so that who reads the log as it grows misses none: from its first event to its
end, a change keeps the organisation's others waiting. Whatever else a change locks, it locks before.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from psycopg import AsyncConnection

from modelplane.admin.v1.admin_pb2 import Actor
from services.identifiers import new_id

_INSERT = """
WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('audit_events ' || %(organization_id)s, 0)))
INSERT INTO audit_events (
    id, organization_id, type, project_id, project_name, resource_id, details_json, actor_key_id, actor_redacted_key,
    actor_owner_id, actor_ip_address, actor_user_agent, request_id, effective_at
)
SELECT
    %(id)s, %(organization_id)s, %(type)s, %(project_id)s,
    coalesce((SELECT name FROM projects WHERE id = %(project_id)s), ''), %(resource_id)s, %(details_json)s,
    %(key_id)s, %(redacted_key)s, %(owner_id)s, %(ip_address)s, %(user_agent)s, %(request_id)s,
    clock_timestamp()
FROM turn
"""


async def audit(
    connection: AsyncConnection,
    kind: str,
    organization_id: str,
    actor: Actor,
    *,
    project_id: str = "",
    resource_id: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Writes an event. `kind` is OpenAI's, for example `project.created`; `details` is the event's own part in the
    API, for example {"id": "proj_…", "data": {"name": "…"}}, and never holds a secret.
    """
    await connection.execute(
        _INSERT,
        {
            "id": new_id("audit_log-"),
            "organization_id": organization_id,
            "type": kind,
            "project_id": project_id,
            "resource_id": resource_id,
            "details_json": msgspec.json.encode(details or {}),
            "key_id": actor.key_id,
            "redacted_key": actor.redacted_key,
            "owner_id": actor.owner_id,
            "ip_address": actor.ip_address,
            "user_agent": actor.user_agent,
            "request_id": actor.request_id,
        },
    )
