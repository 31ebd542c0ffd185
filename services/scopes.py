"""What a key may be restricted to: one scope per group of endpoints and right.

The keys service refuses scopes that are not here, the gateway asks for one of them at every endpoint, and auth for
one in the name of other proxies; none may import another. The words are those of OpenAI's own errors ("Missing scopes:
model.request").
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from modelplane.auth.v1.auth_pb2 import ACCESS_READ_ONLY, ACCESS_RESTRICTED, KEY_KIND_ADMIN, Access, KeyKind, Principal
from services.faults import PermissionDenied

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


def check(principal: Principal, scope: str) -> None:
    """Raises PermissionDenied when the principal's key does not have the scope."""
    if not fits(scope, principal.kind):
        raise PermissionDenied("insufficient_permissions", _WRONG_KIND[SCOPES[scope].administrative])
    if not allows(principal, scope):
        raise PermissionDenied(
            "missing_scope",
            f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have "
            "the correct role in your organization and project, and if you're using a restricted API key, that it "
            "has the necessary scopes.",
        )


_WRONG_KIND: Final[Mapping[bool, str]] = {
    False: "This key may not use models. Use a project's key (sk-proj-... or sk-svcacct-...).",
    True: "This key may not administer the organization. Use an admin key (sk-admin-...).",
}
