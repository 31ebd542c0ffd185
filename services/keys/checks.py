"""What may be asked of keys and service accounts. Pure; what is wrong is raised as InvalidRequest."""

import re
from collections.abc import Sequence
from typing import Final

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.auth.v1 import auth_pb2
from services.faults import Fault, InvalidRequest
from services.key_format import PREFIXES
from services.scopes import SCOPES, fits

MOST_CHARACTERS: Final = 256
MOST_LISTED: Final = 100
# A hundred years: further away than any key should live, and a time that every database and program can hold.
MOST_LIFETIME_S: Final = 100 * 366 * 24 * 3600
ROLES: Final = ("owner", "member", "none")
ACCESSES: Final = auth_pb2.Access.values()

# Terminals obey some of them, and NUL the database cannot hold.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def known(*names: str, missing: Fault) -> None:
    """Raises `missing` for a name that nothing can have: the database cannot even be asked for it."""
    if any("\0" in name for name in names):
        raise missing


def is_empty(page: Page) -> bool:
    """Whether the page has nothing on it, whatever the list. Raises InvalidRequest for one that is too long."""
    if not 1 <= page.limit <= MOST_LISTED:
        raise InvalidRequest("invalid_value", f"A page has 1 to {MOST_LISTED} items.", param="limit")
    return "\0" in page.after + page.before


def name(text: str) -> str:
    if len(text) > MOST_CHARACTERS or _CONTROL.search(text):
        message = f"A name has at most {MOST_CHARACTERS} characters, none of them control characters."
        raise InvalidRequest("invalid_value", message, param="name")
    return text


def role(text: str) -> str:
    if text not in ROLES:
        raise InvalidRequest("invalid_value", f"The role must be one of {', '.join(ROLES)}.", param="role")
    return text


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
