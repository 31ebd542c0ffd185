"""People as the tests of MembersService need them: two organisations with projects, and what is done to their users."""

import asyncio
import json
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

import pytest

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.members.v1 import members_pb2 as pb
from modelplane.members.v1.members_api import MembersService
from services.faults import Fault
from services.members.service import Members
from services.members.store import MembersStore
from services.storage import Database
from tests.contract.conftest import Wire

ONE: dict[str, Any] = {"organization_id": "org-1"}
TWO: dict[str, Any] = {"organization_id": "org-2"}
ACTOR = Actor(key_id="key_admin", redacted_key="sk-admin-****abcd", owner_id="user-admin", request_id="req_1")
NOW_S = 1_700_000_000.25
TENANTS = """
INSERT INTO organizations (id, name) VALUES ('org-1', 'One'), ('org-2', 'Two');
INSERT INTO projects (id, organization_id, name, created_at, archived_at) VALUES
    ('proj-a', 'org-1', 'A', to_timestamp(1), NULL), ('proj-b', 'org-1', 'B', to_timestamp(2), NULL),
    ('proj-old', 'org-1', 'Old', to_timestamp(3), now()), ('proj-other', 'org-2', 'Other', to_timestamp(4), NULL);
"""

T = TypeVar("T")


class Clock:
    """Time that the test passes."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


async def serve(database: Database, wire: Wire, clock: Clock) -> MembersService:
    """The service, with the organisations."""
    async with database.connection() as connection:
        await connection.execute(TENANTS)
    return await wire(MembersService, Members(MembersStore(database), clock=clock))


async def add(members: MembersService, email: str, role: str = "reader", **fields: Any) -> pb.User:
    request = pb.AddUserRequest(**{**ONE, "email": email, "role": role, "actor": ACTOR, **fields})
    return (await members.add_user(request)).user


async def remove(members: MembersService, user_id: str) -> None:
    await members.remove_user(pb.RemoveUserRequest(**ONE, user_id=user_id, actor=ACTOR))


async def role_of(members: MembersService, user_id: str) -> str:
    return (await members.get_user(pb.GetUserRequest(**ONE, user_id=user_id))).user.role


async def put_in(members: MembersService, user_id: str, project_id: str = "proj-a", role: str = "member") -> None:
    await members.add_project_user(
        pb.AddProjectUserRequest(**ONE, project_id=project_id, user_id=user_id, role=role, actor=ACTOR)
    )


async def invite(members: MembersService, email: str = "new@example.com", **fields: Any) -> pb.Invite:
    request = pb.CreateInviteRequest(**{**ONE, "email": email, "role": "reader", "actor": ACTOR, **fields})
    return (await members.create_invite(request)).invite


async def accept(members: MembersService, invite_id: str, **fields: Any) -> pb.User:
    request = pb.AcceptInviteRequest(**{**ONE, "invite_id": invite_id, "actor": ACTOR, **fields})
    return (await members.accept_invite(request)).user


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(Fault) as raised:
        await call
    return raised.value.reason


async def at_once(calls: Iterable[Awaitable[T]]) -> tuple[list[T], list[str]]:
    """What came of calls that ran together: the answers, and the reasons of the faults."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    faults = [one for one in done if isinstance(one, BaseException)]
    assert all(isinstance(fault, Fault) for fault in faults), faults
    return [one for one in done if not isinstance(one, BaseException)], [
        fault.reason for fault in faults if isinstance(fault, Fault)
    ]


async def events(database: Database) -> list[tuple[str, str, dict[str, Any]]]:
    """Types, projects and details of the audit log, in order."""
    async with database.connection() as connection:
        rows = await connection.execute(
            "SELECT type, project_id, details_json, actor_key_id, resource_id FROM audit_events ORDER BY effective_at"
        )
        found = await rows.fetchall()
    assert {(row[3], row[4] == json.loads(row[2])["id"]) for row in found} <= {("key_admin", True)}
    return [(row[0], row[1], json.loads(row[2])) for row in found]
