"""`modelplane keys`: keys of projects, of service accounts and of organisations."""

import argparse
import re
import time
from typing import Final

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1.keys_pb2 import CreateKeyRequest, Key, ListKeysRequest, RevokeKeyRequest
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands, everything
from services.scopes import SCOPES

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
KINDS: Final = {
    auth_pb2.KEY_KIND_PROJECT: "project",
    auth_pb2.KEY_KIND_SERVICE_ACCOUNT: "service_account",
    auth_pb2.KEY_KIND_ADMIN: "admin",
}
ACCESSES: Final = {auth_pb2.ACCESS_READ_ONLY: "read_only", auth_pb2.ACCESS_RESTRICTED: "restricted"}


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane keys` and its verbs."""
    noun = Noun(subcommands, "keys", "keys of projects and organizations")
    listing = noun.verb("list", "show the keys of a project, without their secrets", list_all)
    create_ = noun.verb("create", "make a key; its secret is printed once", create)
    create_.add_argument("--name", default="", help="what the key is for")
    for parser in (listing, create_):
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--project", default="", metavar="ID", help="default: the organization's first")
        where.add_argument("--admin", action="store_true", help="of the organization instead of a project")
    owner = create_.add_mutually_exclusive_group()
    owner.add_argument("--user", default="", metavar="ID", help="whose key it is")
    owner.add_argument("--service-account", default="", metavar="ID", help="whose key it is")
    access = create_.add_mutually_exclusive_group()
    access.add_argument("--read-only", action="store_true", help="it may list and show, and change nothing")
    access.add_argument("--scopes", nargs="+", default=[], metavar="SCOPE", help=f"out of: {', '.join(SCOPES)}")
    create_.add_argument(
        "--expires-in", type=duration_s, default=0, metavar="TIME", help="for example 90d, 12h, 30m; default: never"
    )
    noun.verb("revoke", "make a key invalid everywhere, at once", revoke).add_argument(
        "key_id", help="as `list` shows it; not the secret"
    )


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id, project_id = await _place(platform, options)

    async def fetch(page: Page) -> tuple[list[Key], bool]:
        request = ListKeysRequest(organization_id=organization_id, project_id=project_id, page=page)
        found = await platform.keys.list_keys(request)
        return list(found.keys), found.has_more

    return [row(key) for key in await everything(fetch, lambda key: key.id)]


async def create(platform: Platform, options: argparse.Namespace) -> Answer:
    """With the secret, which nothing shows again."""
    organization_id, project_id = await _place(platform, options)
    made = await platform.keys.create_key(
        CreateKeyRequest(
            organization_id=organization_id,
            project_id=project_id,
            kind=_kind(options),
            name=options.name,
            owner_id=options.service_account or options.user,
            access=_access(options),
            scopes=options.scopes,
            expires_at=int(time.time()) + options.expires_in if options.expires_in else 0,
            actor=ACTOR,
        )
    )
    return {"id": made.key.id, "kind": KINDS[made.key.kind], "project": project_id, "secret": made.secret}


async def revoke(platform: Platform, options: argparse.Namespace) -> Answer:
    organization_id = await platform.organization(options)
    await platform.keys.revoke_key(
        RevokeKeyRequest(organization_id=organization_id, key_id=options.key_id, actor=ACTOR)
    )
    return {"id": options.key_id, "status": "revoked"}


async def _place(platform: Platform, options: argparse.Namespace) -> tuple[str, str]:
    return (await platform.organization(options), "") if options.admin else await platform.project(options)


def _kind(options: argparse.Namespace) -> auth_pb2.KeyKind:
    if options.admin:
        return auth_pb2.KEY_KIND_ADMIN
    return auth_pb2.KEY_KIND_SERVICE_ACCOUNT if options.service_account else auth_pb2.KEY_KIND_PROJECT


def _access(options: argparse.Namespace) -> auth_pb2.Access:
    if options.scopes:
        return auth_pb2.ACCESS_RESTRICTED
    return auth_pb2.ACCESS_READ_ONLY if options.read_only else auth_pb2.ACCESS_ALL


def duration_s(text: str) -> int:
    """Seconds of `90d`, `12h`, `30m` or `45s`. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90d, 12h, 30m or 45s")
    return int(match[1]) * UNITS_S[match[2]]


def row(key: Key) -> Row:
    """A key as `list` shows it."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": KINDS.get(key.kind),
        "key": key.redacted,
        "owner": key.owner_id,
        "access": list(key.scopes) or ACCESSES.get(key.access, "all"),
        "created": moment(key.created_at),
        "last_used": moment(key.last_used_at),
        "expires": moment(key.expires_at),
    }
