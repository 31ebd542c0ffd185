"""KeysService, over both wirings."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2 as pb
from modelplane.keys.v1.keys_api import KeysService
from modelplane.limits.v1 import limits_pb2
from services.faults import Fault
from services.key_format import KeySettings, digest
from services.keys.journal import Journal
from services.keys.service import serving
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.storage import Database
from tests.contract.conftest import Wire
from tests.contract.tenancy import listening, write

ACTOR = Actor(key_id="key_0", redacted_key="sk-admin-****0000", ip_address="127.0.0.1", request_id="req_1")
NOW_S = 1_700_000_000
FIRST: dict[str, Any] = {"organization_id": "org-1", "project_id": "proj_1"}
ALL = Page(limit=100)
PROJECT, ADMIN, ACCOUNT = (
    auth_pb2.KEY_KIND_PROJECT,
    auth_pb2.KEY_KIND_ADMIN,
    auth_pb2.KEY_KIND_SERVICE_ACCOUNT,
)


@pytest.fixture
async def keys(database: Database, wire: Wire, tmp_path: Path) -> AsyncIterator[KeysService]:
    await write(database)
    journal = Journal(tmp_path / "revocations.jsonl")
    settings = KeysSettings(beat_s=0.05)
    async with serving(KeysStore(database), journal, KeySettings(), settings, clock=lambda: NOW_S) as service:
        yield await wire(KeysService, service)


async def make(keys: KeysService, **fields: Any) -> pb.CreateKeyResponse:
    return await keys.create_key(pb.CreateKeyRequest(**{**FIRST, "kind": PROJECT, "actor": ACTOR, **fields}))


async def resolve(keys: KeysService, secret: str) -> auth_pb2.Principal | None:
    request = pb.ResolveRequest(digest=digest(secret, KeySettings().hash_key))
    found = await keys.resolve(request)
    return found.principal if found.HasField("principal") else None


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(Fault) as caught:
        await call
    return caught.value.reason


async def events(database: Database) -> list[tuple[str, str, str, Any]]:
    async with database.connection() as connection:
        found = await connection.execute(
            "SELECT type, project_id, resource_id, details_json FROM audit_events ORDER BY effective_at, id"
        )
        return [(*row[:3], json.loads(row[3])) for row in await found.fetchall()]


async def test_a_key_acts_for_its_project(keys: KeysService, database: Database) -> None:
    made = await make(keys, name="ci")
    assert made.secret.startswith("sk-proj-") and made.key.redacted == f"sk-proj-****{made.secret[-4:]}"
    assert (made.key.name, made.key.access, made.key.owner_id) == ("ci", auth_pb2.ACCESS_ALL, "")
    assert await resolve(keys, made.secret) == auth_pb2.Principal(
        organization_id="org-1",
        project_id="proj_1",
        key_id=made.key.id,
        kind=PROJECT,
        access=auth_pb2.ACCESS_ALL,
        usage_tier=3,
        weight=1,
    )
    assert await resolve(keys, made.secret[:-1]) is None
    assert await events(database) == [
        ("api_key.created", "proj_1", made.key.id, {"id": made.key.id, "data": {"scopes": []}})
    ]


async def test_everything_that_was_set_travels_with_the_principal(keys: KeysService, database: Database) -> None:
    made = await make(
        keys,
        owner_id="user-ann",
        access=auth_pb2.ACCESS_RESTRICTED,
        scopes=["model.request", "api.model.read", "model.request"],
        expires_at=NOW_S + 60,
    )
    await write(
        database,
        """
        UPDATE projects SET models_mode = 1, models = '{a,b}', ip_ranges = '{10.0.0.0/8}', weight = 7
            WHERE id = 'proj_1';
        INSERT INTO limit_overrides (organization_id, project_id, model, dimension, units) VALUES
            ('org-1', '', 'm', 1, 10), ('org-1', 'proj_1', 'm', 3, 20), ('org-1', 'proj_2', 'm', 3, 30),
            ('org-2', '', 'm', 3, 40);
        """,
    )
    principal = await resolve(keys, made.secret)
    assert principal is not None
    assert (principal.owner_id, principal.weight, list(principal.ip_ranges)) == ("user-ann", 7, ["10.0.0.0/8"])
    assert list(principal.scopes) == ["model.request", "api.model.read"]
    assert principal.expires_at_ms == (NOW_S + 60) * 1000
    assert principal.models == auth_pb2.ModelPolicy(mode=auth_pb2.ModelPolicy.MODE_ALLOW_LIST, models=["a", "b"])
    limits = {(limit.scope, limit.model, limit.dimension, limit.limit) for limit in principal.limits}
    assert limits == {
        (limits_pb2.SCOPE_ORGANIZATION, "m", limits_pb2.DIMENSION_REQUESTS_PER_MINUTE, 10),
        (limits_pb2.SCOPE_PROJECT, "m", limits_pb2.DIMENSION_TOKENS_PER_MINUTE, 20),
    }


ENDS = [
    ("UPDATE projects SET archived_at = now() WHERE id = 'proj_1'", {PROJECT, ACCOUNT}),
    ("DELETE FROM project_members WHERE user_id = 'user-ann'", {PROJECT}),
    ("DELETE FROM organization_members WHERE organization_id = 'org-1'", {PROJECT, ADMIN}),
    ("UPDATE organization_members SET role = 'reader' WHERE organization_id = 'org-1'", {ADMIN}),
    ("UPDATE service_accounts SET deleted_at = now()", {ACCOUNT}),
    ("UPDATE api_keys SET revoked_at = now()", {PROJECT, ADMIN, ACCOUNT}),
]


@pytest.mark.parametrize(("end", "concerned"), ENDS)
async def test_what_ends_a_key(keys: KeysService, database: Database, end: str, concerned: set[int]) -> None:
    account = await keys.create_service_account(
        pb.CreateServiceAccountRequest(**FIRST, name="bot", role="member", with_key=True, actor=ACTOR)
    )
    secrets = {
        PROJECT: (await make(keys, owner_id="user-ann")).secret,
        ADMIN: (await make(keys, project_id="", kind=ADMIN, owner_id="user-ann")).secret,
        ACCOUNT: account.secret,
    }
    assert all([await resolve(keys, secret) for secret in secrets.values()])
    await write(database, end)
    assert {kind for kind, secret in secrets.items() if await resolve(keys, secret) is None} == concerned


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"project_id": "proj_none"}, "project_not_found"),
        ({"project_id": "proj_3"}, "project_not_found"),
        ({"project_id": "a\0"}, "project_not_found"),
        ({"organization_id": "org-none"}, "project_not_found"),
        ({"organization_id": "org-none", "project_id": "", "kind": ADMIN}, "organization_not_found"),
        ({"kind": 0}, "invalid_value"),
        ({"kind": ADMIN}, "invalid_value"),
        ({"project_id": ""}, "invalid_value"),
        ({"owner_id": "user-bob"}, "user_not_found"),
        ({"project_id": "proj_2", "owner_id": "user-ann"}, "user_not_found"),
        ({"kind": ACCOUNT, "owner_id": "user-ann"}, "service_account_not_found"),
        ({"kind": ACCOUNT}, "service_account_not_found"),
        ({"expires_at": NOW_S}, "invalid_value"),
        ({"scopes": ["model.request"]}, "invalid_value"),
        ({"access": auth_pb2.ACCESS_RESTRICTED, "scopes": ["api.management.read"]}, "invalid_value"),
        ({"access": auth_pb2.ACCESS_RESTRICTED, "scopes": ["no.such"]}, "invalid_value"),
        ({"name": "x" * 257}, "string_above_max_length"),
        ({"project_id": "", "kind": ADMIN, "owner_id": "user-ann", "organization_id": "org-2"}, "invalid_value"),
        ({"expires_at": NOW_S + 10**12}, "invalid_value"),
        ({"name": "\x1b[2J"}, "invalid_value"),
        ({"access": 7}, "invalid_value"),
    ],
)
async def test_keys_that_are_not_made(
    keys: KeysService, database: Database, fields: dict[str, Any], reason: str
) -> None:
    assert await refused(make(keys, **fields)) == reason
    assert await events(database) == []


async def test_an_archived_project_gets_no_keys(keys: KeysService, database: Database) -> None:
    await write(database, "UPDATE projects SET archived_at = now()")
    assert await refused(make(keys)) == "project_archived"
    account = pb.CreateServiceAccountRequest(**FIRST, name="bot", role="member")
    assert await refused(keys.create_service_account(account)) == "project_archived"


async def test_a_project_that_is_being_archived_gets_no_keys(keys: KeysService, database: Database) -> None:
    account = pb.CreateServiceAccountRequest(**FIRST, name="bot", role="member", with_key=True)
    async with database.connection() as archiving:
        await archiving.execute("UPDATE projects SET archived_at = now() WHERE id = 'proj_1'")
        made = [asyncio.create_task(refused(call)) for call in (make(keys), keys.create_service_account(account))]
        # To read does not have to wait.
        await keys.list_keys(pb.ListKeysRequest(**FIRST, page=ALL))
        assert not (await asyncio.wait(made, timeout=0.2))[0]
    assert await asyncio.gather(*made) == ["project_archived"] * 2


async def test_an_archived_project_stays_as_it_is(keys: KeysService, database: Database) -> None:
    made = await keys.create_service_account(pb.CreateServiceAccountRequest(**FIRST, name="bot", role="member"))
    this: dict[str, Any] = {**FIRST, "service_account_id": made.service_account.id}
    await write(database, "UPDATE projects SET archived_at = now()")
    changed = pb.UpdateServiceAccountRequest(**this, name="robot")
    assert await refused(keys.update_service_account(changed)) == "project_archived"
    assert (await keys.get_service_account(pb.GetServiceAccountRequest(**this))).service_account.name == "bot"


async def test_a_key_of_another_kind_is_not_revoked(keys: KeysService) -> None:
    made, admin = await make(keys), await make(keys, project_id="", kind=ADMIN)
    revoke = pb.RevokeKeyRequest(organization_id="org-1", key_id=made.key.id, kind=ADMIN)
    assert await refused(keys.revoke_key(revoke)) == "key_not_found"
    assert await resolve(keys, made.secret) is not None
    await keys.revoke_key(pb.RevokeKeyRequest(organization_id="org-1", key_id=admin.key.id, kind=ADMIN))
    assert await resolve(keys, admin.secret) is None


async def test_keys_are_listed_by_what_their_owners_may_do(keys: KeysService, database: Database) -> None:
    nobodys = (await make(keys)).key.id
    anns = [(await make(keys, owner_id="user-ann")).key.id for _ in range(3)]
    account = await keys.create_service_account(
        pb.CreateServiceAccountRequest(**FIRST, name="ci", role="member", with_key=True, actor=ACTOR)
    )
    await write(database, "DELETE FROM project_members")

    async def listed(access: pb.OwnerAccess, **page: Any) -> tuple[list[str], bool]:
        page = {"limit": 2, "ascending": True, **page}
        found = await keys.list_keys(pb.ListKeysRequest(**FIRST, owner_access=access, page=Page(**page)))
        return [key.id for key in found.keys], found.has_more

    assert await listed(pb.OWNER_ACCESS_ACTIVE) == ([nobodys, account.key.id], False)
    assert await listed(pb.OWNER_ACCESS_INACTIVE) == (anns[:2], True)
    assert await listed(pb.OWNER_ACCESS_INACTIVE, before=account.key.id) == (anns[1:], True)
    assert await listed(pb.OWNER_ACCESS_UNSPECIFIED) == ([nobodys, anns[0]], True)
    assert await refused(listed(7)) == "invalid_value"  # type: ignore[arg-type]


async def test_keys_are_listed_for_their_own(keys: KeysService) -> None:
    made = [(await make(keys, name=str(number), owner_id="user-ann")).key.id for number in range(3)]
    await make(keys, project_id="proj_2")
    admin = await make(keys, project_id="", kind=ADMIN, name="boss")
    listed = await keys.list_keys(pb.ListKeysRequest(**FIRST, page=Page(limit=2, ascending=True)))
    assert [key.id for key in listed.keys] == made[:2] and listed.has_more
    assert (listed.keys[0].owner_name, listed.keys[0].owner_email) == ("Ann", "ann@example.com")
    assert listed.keys[0].owner_role == "member"
    rest = await keys.list_keys(pb.ListKeysRequest(**FIRST, page=Page(limit=2, ascending=True, after=made[1])))
    assert [key.id for key in rest.keys] == made[2:] and not rest.has_more
    admins = await keys.list_keys(pb.ListKeysRequest(organization_id="org-1", page=ALL))
    assert [key.id for key in admins.keys] == [admin.key.id]
    assert not (await keys.list_keys(pb.ListKeysRequest(organization_id="org-2", page=ALL))).keys
    foreign = pb.ListKeysRequest(organization_id="org-2", project_id="proj_1", page=ALL)
    assert await refused(keys.list_keys(foreign)) == "project_not_found"
    for place in ({"organization_id": "org-2", "project_id": "proj_3"}, {"organization_id": "org-1"}):
        assert await refused(keys.get_key(pb.GetKeyRequest(**place, key_id=made[0]))) == "key_not_found"
    assert (await keys.get_key(pb.GetKeyRequest(**FIRST, key_id=made[0]))).key == listed.keys[0]


async def test_a_revoked_key_is_gone(keys: KeysService, database: Database) -> None:
    made = await make(keys)
    revoke = pb.RevokeKeyRequest(organization_id="org-1", key_id=made.key.id, actor=ACTOR)
    foreign: list[dict[str, Any]] = [{"organization_id": "org-2"}, {"organization_id": "org-1", "project_id": "proj_2"}]
    for place in foreign:
        assert await refused(keys.revoke_key(pb.RevokeKeyRequest(**place, key_id=made.key.id))) == "key_not_found"
    assert await refused(keys.revoke_key(pb.RevokeKeyRequest(**FIRST, key_id="key_none"))) == "key_not_found"
    assert await resolve(keys, made.secret) is not None
    for _ in range(2):
        await keys.revoke_key(revoke)
        assert await resolve(keys, made.secret) is None
    assert not (await keys.list_keys(pb.ListKeysRequest(**FIRST, page=ALL))).keys
    assert [event[0] for event in await events(database)] == ["api_key.created", "api_key.deleted"]


async def test_the_last_use_never_goes_back(keys: KeysService) -> None:
    made = await make(keys)
    for used_at_ms, shown in ((5_000, 5), (3_000, 5), (9_000, 9)):
        await keys.touch(pb.TouchRequest(used_at_ms={made.key.id: used_at_ms, "key_none": 1}))
        found = await keys.get_key(pb.GetKeyRequest(**FIRST, key_id=made.key.id))
        assert found.key.last_used_at == shown


async def test_a_service_account_from_its_making_to_its_end(keys: KeysService, database: Database) -> None:
    made = await keys.create_service_account(
        pb.CreateServiceAccountRequest(**FIRST, name="bot", role="member", with_key=True, actor=ACTOR)
    )
    account = made.service_account
    assert made.secret.startswith("sk-svcacct-") and made.key.owner_id == account.id
    assert (account.name, account.role, account.created_at) == ("bot", "member", NOW_S)
    principal = await resolve(keys, made.secret)
    assert principal is not None and (principal.kind, principal.owner_id) == (ACCOUNT, account.id)
    another = await make(keys, kind=ACCOUNT, owner_id=account.id)
    this: dict[str, Any] = {**FIRST, "service_account_id": account.id}
    assert (await keys.get_service_account(pb.GetServiceAccountRequest(**this))).service_account == account
    changed = await keys.update_service_account(
        pb.UpdateServiceAccountRequest(**this, name="robot", role="owner", actor=ACTOR)
    )
    assert (changed.service_account.name, changed.service_account.role) == ("robot", "owner")
    await keys.update_service_account(pb.UpdateServiceAccountRequest(**this, name="robot", actor=ACTOR))
    listed = await keys.list_service_accounts(pb.ListServiceAccountsRequest(**FIRST, page=ALL))
    assert list(listed.service_accounts) == [changed.service_account]
    for foreign in ({**this, "project_id": "proj_2"}, {**this, "organization_id": "org-2"}, {**this, "project_id": ""}):
        for call in (
            keys.get_service_account(pb.GetServiceAccountRequest(**foreign)),
            keys.update_service_account(pb.UpdateServiceAccountRequest(**foreign, name="x")),
            keys.delete_service_account(pb.DeleteServiceAccountRequest(**foreign)),
        ):
            assert await refused(call) == "service_account_not_found"
    await keys.delete_service_account(pb.DeleteServiceAccountRequest(**this, actor=ACTOR))
    assert await resolve(keys, made.secret) is None and await resolve(keys, another.secret) is None
    assert await refused(keys.get_service_account(pb.GetServiceAccountRequest(**this))) == "service_account_not_found"
    assert [(event[0], event[3].get("changes_requested")) for event in await events(database)] == [
        ("service_account.created", None),
        ("api_key.created", None),
        ("api_key.created", None),
        ("service_account.updated", {"name": "robot", "role": "owner"}),
        ("service_account.deleted", None),
    ]


async def test_a_watcher_is_told_of_every_change_and_that_the_stream_lives(
    keys: KeysService, database: Database
) -> None:
    made = await make(keys)
    # Before, everything is said to be old at some moment, in place of what has changed.
    await listening(keys, database)
    heard: list[pb.WatchResponse] = []
    async with asyncio.timeout(30), aclosing(keys.watch(pb.WatchRequest())) as changes:  # type: ignore[type-var]
        assert await anext(changes) == pb.WatchResponse()
        await write(database, "UPDATE projects SET weight = 2 WHERE id = 'proj_1'")
        await write(database, "UPDATE organizations SET usage_tier = 4 WHERE id = 'org-1'")
        await keys.revoke_key(pb.RevokeKeyRequest(**FIRST, key_id=made.key.id, actor=ACTOR))
        while len(heard) < 4:
            change = await anext(changes)
            if change != pb.WatchResponse():
                heard.append(change)
    assert heard[:2] == [pb.WatchResponse(project_id="proj_1"), pb.WatchResponse(organization_id="org-1")]
    told = [heard[2].SerializeToString(), heard[3].SerializeToString()]
    expected = [
        pb.WatchResponse(key_id=made.key.id),
        pb.WatchResponse(organization_id="org-1", project_id="proj_1", key_id=made.key.id, revoked=True),
    ]
    assert sorted(told) == sorted(change.SerializeToString() for change in expected)
