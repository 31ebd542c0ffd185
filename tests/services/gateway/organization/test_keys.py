"""Keys and service accounts, as the official SDK administers them."""

import asyncio
import json

import openai
import pytest
from openai.resources.admin.organization import AsyncOrganization
from psycopg import AsyncConnection

from modelplane.auth.v1.auth_pb2 import ACCESS_ALL, ACCESS_RESTRICTED, KEY_KIND_PROJECT
from modelplane.keys.v1.keys_pb2 import CreateKeyRequest, GetKeyRequest, Key
from tests.services.gateway.organization.conftest import Console, Organization


async def project_key(console: Console, place: Organization, owner_id: str = "", name: str = "k") -> str:
    request = CreateKeyRequest(
        organization_id=place.id, project_id=place.project_id, kind=KEY_KIND_PROJECT, name=name, owner_id=owner_id
    )
    return (await console.keys.create_key(request)).key.id


async def key_of(console: Console, place: Organization, key_id: str) -> Key:
    request = GetKeyRequest(organization_id=place.id, project_id=place.project_id, key_id=key_id)
    return (await console.keys.get_key(request)).key


async def test_the_life_of_a_service_account(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    accounts = admin.projects.service_accounts
    made = await accounts.create(mine.project_id, name="robot")
    assert (made.name, made.role) == ("robot", "member")
    assert made.api_key and made.api_key.value.startswith("sk-svcacct-")
    found = await accounts.retrieve(made.id, project_id=mine.project_id)
    assert (found.id, found.role) == (made.id, "member")
    updated = await accounts.update(made.id, project_id=mine.project_id, name="android", role="owner")
    assert (updated.name, updated.role) == ("android", "owner")
    second = await accounts.api_keys.create(made.id, project_id=mine.project_id, scopes=["model.request"])
    kept = await key_of(console, mine, second.id)
    assert (kept.access, list(kept.scopes), kept.name) == (ACCESS_RESTRICTED, ["model.request"], "Secret Key")
    third = await accounts.api_keys.create(made.id, project_id=mine.project_id, name="third")
    assert (third.name, (await key_of(console, mine, third.id)).access) == ("third", ACCESS_ALL)
    listed = [key async for key in admin.projects.api_keys.list(mine.project_id, limit=1)]
    assert [key.id for key in listed] == [third.id, second.id, made.api_key.id]
    owner = listed[0].owner.service_account
    assert listed[0].owner.type == "service_account" and owner and owner.id == made.id
    gone = await accounts.delete(made.id, project_id=mine.project_id)
    assert gone.to_dict() == {
        "object": "organization.project.service_account.deleted",
        "id": made.id,
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError) as raised:
        await accounts.retrieve(made.id, project_id=mine.project_id)
    assert raised.value.code == "service_account_not_found"
    assert (await admin.projects.api_keys.list(mine.project_id)).data == []


async def test_a_service_account_without_a_key(admin: AsyncOrganization, mine: Organization) -> None:
    accounts = admin.projects.service_accounts
    made = await accounts.create(mine.project_id, name="alone", create_service_account_only=True)
    assert (made.role, made.api_key) == ("none", None)
    assert [one.id async for one in accounts.list(mine.project_id, limit=1)] == [made.id]
    assert (await admin.projects.api_keys.list(mine.project_id)).data == []


async def test_a_key_is_made_without_a_body(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    made = await admin.projects.service_accounts.create(mine.project_id, name="robot")
    path = f"/v1/organization/projects/{mine.project_id}/service_accounts/{made.id}/api_keys"
    assert (await console.ask(mine.admin_key, "POST", path)).status_code == 200


async def test_project_keys(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    keys = admin.projects.api_keys
    nobodys = await project_key(console, mine)
    anns = await project_key(console, mine, await console.add_user(mine, "ann@example.com"))
    found = await keys.retrieve(anns, project_id=mine.project_id)
    assert found.redacted_value.startswith("sk-proj-****") and found.last_used_at is None
    assert found.owner.user and (found.owner.type, found.owner.user.email) == ("user", "ann@example.com")
    assert (await keys.retrieve(nobodys, project_id=mine.project_id)).owner.type is None
    gone = await keys.delete(anns, project_id=mine.project_id)
    assert gone.to_dict() == {"object": "organization.project.api_key.deleted", "id": anns, "deleted": True}
    with pytest.raises(openai.NotFoundError) as raised:
        await keys.retrieve(anns, project_id=mine.project_id)
    assert raised.value.code == "key_not_found"


async def test_keys_by_what_their_owners_may_do(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    ann, bob = [await console.add_user(mine, f"{name}@example.com") for name in ("ann", "bob")]
    ids = [await project_key(console, mine, bob if number % 3 == 2 else ann) for number in range(9)]
    left = ids[2::3]
    await admin.projects.users.delete(bob, project_id=mine.project_id)
    keys = admin.projects.api_keys
    page = await keys.list(mine.project_id, owner_project_access="inactive", limit=2)
    assert [key.id for key in page.data] == left[:0:-1] and page.has_more
    assert {key.owner_project_access for key in page.data} == {"inactive"}
    rest = await keys.list(mine.project_id, owner_project_access="inactive", limit=2, after=page.data[-1].id)
    assert [key.id for key in rest.data] == left[:1] and not rest.has_more
    active = [key.id async for key in keys.list(mine.project_id, owner_project_access="active", limit=100)]
    assert active == [key_id for key_id in ids[::-1] if key_id not in left]
    assert len([key async for key in keys.list(mine.project_id, owner_project_access="any", limit=100)]) == 9


async def test_admin_keys(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    keys = admin.admin_api_keys
    forever = await keys.create(name="first")
    assert forever.value.startswith("sk-admin-") and forever.expires_at is None
    brief = await keys.create(name="second", expires_in_seconds=60)
    assert brief.expires_at
    assert [key.id async for key in keys.list(limit=1)] == [forever.id, brief.id]
    newest = await keys.list(order="desc")
    assert [key.id for key in newest.data] == [brief.id, forever.id]
    found = await keys.retrieve(brief.id)
    assert (found.id, found.name) == (brief.id, "second") and not hasattr(found, "value")
    gone = await keys.delete(brief.id)
    assert gone.to_dict() == {"object": "organization.admin_api_key.deleted", "id": brief.id, "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await keys.retrieve(brief.id)
    for wrong, code in (
        ({"name": "x", "expires_in_seconds": 0}, "integer_below_min_value"),
        ({"name": "x", "expires_in_seconds": 31536001}, "integer_above_max_value"),
        ({}, "missing_required_parameter"),
    ):
        assert (await console.refused(mine.admin_key, "POST", "/admin_api_keys", wrong))[:2] == (400, code)


async def test_a_new_admin_key_belongs_to_whom_the_calling_one_does(console: Console, mine: Organization) -> None:
    ann = await console.add_user(mine, "ann@example.com")
    console.edge.auth.principals[mine.admin_key].owner_id = ann
    made = (await console.ask(mine.admin_key, "POST", "/v1/organization/admin_api_keys", {"name": "x"})).json()
    owner = made["owner"]
    assert (owner["id"], owner["name"], owner["type"], owner["role"]) == (ann, "Ann", "user", "owner")


async def test_a_key_makes_none_that_may_do_more(console: Console, mine: Organization) -> None:
    caller = console.edge.auth.principals[mine.admin_key]
    caller.access = ACCESS_RESTRICTED
    caller.scopes[:] = ["api.management.write"]
    made = (await console.ask(mine.admin_key, "POST", "/v1/organization/admin_api_keys", {"name": "x"})).json()
    kept = (await console.keys.get_key(GetKeyRequest(organization_id=mine.id, key_id=made["id"]))).key
    assert (kept.access, list(kept.scopes)) == (ACCESS_RESTRICTED, ["api.management.write"])


async def test_all_keys_are_deleted_while_they_are_listed(
    console: Console, admin: AsyncOrganization, mine: Organization
) -> None:
    made = [await project_key(console, mine) for _ in range(5)]
    seen = []
    async for key in admin.projects.api_keys.list(mine.project_id, limit=2):
        await admin.projects.api_keys.delete(key.id, project_id=mine.project_id)
        seen.append(key.id)
    assert seen == made[::-1]


async def test_only_admin_keys_are_deleted_as_such(
    console: Console, admin: AsyncOrganization, mine: Organization
) -> None:
    key_id = await project_key(console, mine)
    with pytest.raises(openai.NotFoundError):
        await admin.admin_api_keys.delete(key_id)
    assert (await key_of(console, mine, key_id)).id == key_id


async def test_an_admin_key_is_deleted_while_the_database_is_down(console: Console, admin: AsyncOrganization) -> None:
    made = await admin.admin_api_keys.create(name="lost")
    await console.database.close()
    assert (await admin.admin_api_keys.delete(made.id)).deleted
    assert [revocation.key_id for revocation in console.journal.revocations.values()] == [made.id]


async def test_an_admin_key_is_deleted_while_the_database_hangs(
    console: Console, admin: AsyncOrganization, database_url: str
) -> None:
    made = await admin.admin_api_keys.create(name="lost")
    async with await AsyncConnection.connect(database_url) as blocker:
        await blocker.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            assert (await admin.admin_api_keys.delete(made.id)).deleted
    assert [revocation.key_id for revocation in console.journal.revocations.values()] == [made.id]
    await console.keys.close()


async def test_secrets_are_shown_once(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    account = await admin.projects.service_accounts.create(mine.project_id, name="robot")
    made = await admin.admin_api_keys.create(name="first")
    assert account.api_key
    for path in ("admin_api_keys", f"projects/{mine.project_id}/api_keys", "audit_logs"):
        shown = json.dumps((await console.ask(mine.admin_key, "GET", f"/v1/organization/{path}")).json())
        assert made.value not in shown and account.api_key.value not in shown


async def test_keys_by_what_their_owners_may_use_are_read_both_ways(console: Console, mine: Organization) -> None:
    made = [await project_key(console, mine) for _ in range(5)]
    path = f"/v1/organization/projects/{mine.project_id}/api_keys?owner_project_access=active&order=asc&limit=2"

    async def read(query: str) -> tuple[list[str], bool]:
        answer = (await console.ask(mine.admin_key, "GET", path + query)).json()
        return [key["id"] for key in answer["data"]], answer["has_more"]

    assert await read(f"&before={made[4]}") == (made[2:4], True)
    assert await read(f"&before={made[2]}") == (made[:2], False)
    assert await read(f"&after={made[2]}") == (made[3:], False)
    assert await read(f"&after={made[0]}&before={made[4]}") == (made[1:3], True)
    assert await read(f"&after={made[0]}&before={made[2]}") == (made[1:2], False)
