"""What may be asked of keys and service accounts. Pure; what is wrong is raised as InvalidRequest."""

from collections.abc import Sequence
from typing import Final

from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1.keys_pb2 import OwnerAccess
from services.asked import has_nul
from services.faults import Fault, InvalidRequest
from services.key_format import PREFIXES
from services.scopes import SCOPES, fits

# A hundred years: further away than any key should live, and a time that every database and program can hold.
MOST_LIFETIME_S: Final = 100 * 366 * 24 * 3600
ROLES: Final = ("owner", "member", "none")
ACCESSES: Final = auth_pb2.Access.values()


def known(*names: str, missing: Fault) -> None:
    """Raises `missing` for a name that nothing can have: the database cannot even be asked for it."""
    if has_nul(*names):
        raise missing


def role(text: str) -> str:
    if text not in ROLES:
        raise InvalidRequest("invalid_value", f"The role must be one of {', '.join(ROLES)}.", param="role")
    return text


def owner_access(wanted: OwnerAccess) -> None:
    if wanted not in OwnerAccess.values():
        raise InvalidRequest("invalid_value", f"There is no access {wanted} of owners.", param="owner_access")


def place(kind: auth_pb2.KeyKind, project_id: str) -> None:
    """A key is of a kind that there is, and of a project unless it administers the organisation."""
    if kind not in PREFIXES:
        raise InvalidRequest("invalid_value", "A key is of a project, of a service account, or an admin key.")
    if (kind == auth_pb2.KEY_KIND_ADMIN) != (not project_id):
        raise InvalidRequest(
            "invalid_value", "An admin key has no project; every other key has one.", param="project_id"
        )


def expiry(expires_at_s: int, now_s: float) -> None:
    if expires_at_s and expires_at_s <= now_s:
        raise InvalidRequest("invalid_value", "A key must expire in the future.", param="expires_at")
    if expires_at_s > now_s + MOST_LIFETIME_S:
        raise InvalidRequest("invalid_value", "A key must expire within a hundred years.", param="expires_at")


def scopes(kind: auth_pb2.KeyKind, access: auth_pb2.Access, names: Sequence[str]) -> Sequence[str]:
    """The scopes of a restricted key, each once; others have none. Refuses an access that there is not, too."""
    if access not in ACCESSES:
        raise InvalidRequest("invalid_value", f"There is no access {access}.", param="access")
    if access != auth_pb2.ACCESS_RESTRICTED:
        if names:
            raise InvalidRequest("invalid_value", "Only a restricted key has scopes.", param="scopes")
        return ()
    for scope in names:
        if scope not in SCOPES or not fits(scope, kind):
            fitting = ", ".join(scope for scope in SCOPES if fits(scope, kind))
            raise InvalidRequest(
                "invalid_value", f"A key of this kind has no scope '{scope}'. There are: {fitting}.", param="scopes"
            )
    return tuple(dict.fromkeys(names))
