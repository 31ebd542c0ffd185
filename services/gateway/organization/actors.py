"""Who makes an administrative call, as the audit log is to know it."""

from collections.abc import Callable
from typing import Final

from modelplane.admin.v1.admin_pb2 import Actor
from services.gateway.access import Access
from services.gateway.calls import Call
from services.key_format import redact

# Of what a client may say at any length: an event stays for good.
MOST_KEPT: Final = 512

ActorOf = Callable[[Call], Actor]


def actors(access: Access) -> ActorOf:
    """Says so of calls that `access` let in."""

    def actor_of(call: Call) -> Actor:
        key, _, _ = call.credentials()
        return Actor(
            key_id=call.caller.key_id,
            redacted_key=redact(key),
            owner_id=call.caller.owner_id,
            ip_address=access.address(call)[:MOST_KEPT],
            user_agent=call.header(b"user-agent")[:MOST_KEPT],
            request_id=call.request_id,
        )

    return actor_of
