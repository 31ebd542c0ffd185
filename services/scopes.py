"""What a key may be restricted to: one scope per group of endpoints and right.

The keys service refuses scopes that are not here, and the gateway asks for one of them at every endpoint; neither
may import the other. The words are those of OpenAI's own errors ("Missing scopes: model.request").
"""

from collections.abc import Mapping
from typing import NamedTuple

from modelplane.auth.v1.auth_pb2 import ACCESS_READ_ONLY, ACCESS_RESTRICTED, KEY_KIND_ADMIN, Access, KeyKind, Principal

READ = ".read"


class Scope(NamedTuple):
    """`administrative` scopes are for the keys of an organisation, the others for those of a project."""

    administrative: bool
    meaning: str


SCOPES: Mapping[str, Scope] = {
    "api.model.read": Scope(False, "list models"),
    "model.request": Scope(False, "run models: chat, completions"),
    "api.chat.completions.read": Scope(False, "read stored chat completions"),
    "api.chat.completions.write": Scope(False, "change and delete stored chat completions"),
    "api.management.read": Scope(True, "read projects, members, keys and limits"),
    "api.management.write": Scope(True, "change projects, members, keys and limits"),
    "api.audit_logs.read": Scope(True, "read the audit log"),
    "api.usage.read": Scope(True, "read usage, costs, prices, credits and invoices"),
}


def fits(scope: str, kind: KeyKind) -> bool:
    """Whether a key of this kind can have the scope at all."""
    return SCOPES[scope].administrative == (kind == KEY_KIND_ADMIN)


def allows(principal: Principal, scope: str) -> bool:
    """Whether the principal's key has the scope, which must fit its kind."""
    access: Access = principal.access
    if access == ACCESS_READ_ONLY:
        return scope.endswith(READ)
    return access != ACCESS_RESTRICTED or scope in principal.scopes
