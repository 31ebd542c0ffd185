"""The audit log's one statement, for every store that makes an administrative change.

It runs in the transaction of the change, so that neither is there without the other.
"""

import os
from collections.abc import Mapping
from typing import Any

import msgspec
from psycopg import AsyncConnection

from modelplane.admin.v1.admin_pb2 import Actor

_INSERT = """
INSERT INTO audit_events (
    id, organization_id, type, project_id, project_name, resource_id, details_json, actor_key_id, actor_redacted_key,
    actor_owner_id, actor_ip_address, actor_user_agent, request_id
)
VALUES (
    %(id)s, %(organization_id)s, %(type)s, %(project_id)s,
    coalesce((SELECT name FROM projects WHERE id = %(project_id)s), ''), %(resource_id)s, %(details_json)s,
    %(key_id)s, %(redacted_key)s, %(owner_id)s, %(ip_address)s, %(user_agent)s, %(request_id)s
)
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
            "id": f"audit_log-{os.urandom(12).hex()}",
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
