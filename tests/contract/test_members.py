"""MembersService, over both wirings, on a real PostgreSQL: users and projects, also when many change them at once."""

from collections.abc import Awaitable, Iterable
from typing import Any

import pytest

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.members.v1 import members_pb2 as pb
from modelplane.members.v1.members_api import MembersService
from services.faults import InvalidRequest
from services.storage import Database
from tests.contract.conftest import Wire
from tests.contract.people import ACTOR, ONE, TWO, Clock, add, at_once, events, put_in, refusal, remove, role_of, serve


@pytest.fixture
async def members(database: Database, wire: Wire) -> MembersService:
    return await serve(database, wire, Clock())


# ----------------------------------------------------------------------------------------- organisations


async def test_a_user_belongs_to_several_organisations(members: MembersService) -> None:
    first = await add(members, "Ann.Lee@Example.com", "owner", name="Ann")
    second = await add(members, "ann.lee@example.COM", "viewer", name="Another", **TWO)
    assert (second.id, second.email, second.name) == (first.id, "Ann.Lee@Example.com", "Ann")
    assert (first.role, second.role) == ("owner", "viewer")
    assert first.id.startswith("user-") and first.added_at > 0 and first.created_at > 0
    assert first.key_last_used_at == 0
    found = await members.get_user(pb.GetUserRequest(**TWO, user_id=first.id))
    assert found.user == second


async def test_adding_a_member_again_sets_the_role(members: MembersService, database: Database) -> None:
    first = await add(members, "a@example.com", "owner")
    await add(members, "b@example.com", "owner")
    assert (await add(members, "A@example.com", "viewer")).id == first.id
    assert await role_of(members, first.id) == "viewer"
    await add(members, "a@example.com", "viewer")
    assert [kind for kind, _, _ in await events(database)] == ["user.added", "user.added", "user.updated"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a\0@example.com"}, "email"),
        ({"role": "member"}, "role"),
        ({"role": ""}, "role"),
        ({"name": "a\0"}, "name"),
        ({"name": "\x1b[2J"}, "name"),
    ],
)
async def test_what_is_no_user_is_refused(members: MembersService, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await add(members, **{"email": "a@example.com", **fields})
    assert (raised.value.reason, raised.value.param) == ("invalid_value", param)


async def test_names_that_are_too_long_are_refused(members: MembersService) -> None:
    assert await refusal(add(members, "a@example.com", name="a" * 257)) == "string_above_max_length"


async def test_nobody_joins_what_is_not_there(members: MembersService) -> None:
    assert await refusal(add(members, "a@example.com", organization_id="org-none")) == "organization_not_found"


async def test_users_are_listed_by_pages_and_by_address(members: MembersService) -> None:
    ids = [(await add(members, f"u{number}@example.com")).id for number in range(5)]
    await add(members, "foreign@example.com", **TWO)

    async def listed(emails: Iterable[str] = (), **page: Any) -> tuple[list[str], bool]:
        request = pb.ListUsersRequest(**ONE, emails=emails, page=Page(**{"limit": 20, **page}))
        found = await members.list_users(request)
        return [user.id for user in found.users], found.has_more

    assert await listed() == (ids[::-1], False)
    assert await listed(limit=2, ascending=True) == (ids[:2], True)
    assert await listed(limit=3, ascending=True, after=ids[1]) == (ids[2:], False)
    assert await listed(limit=2, ascending=True, before=ids[4]) == (ids[2:4], True)
    assert await listed(["U1@example.com", "foreign@example.com", "u\0"]) == ([ids[1]], False)
    assert await listed(["u\0"]) == ([], False)
    for cursor in ("user-none", "\0"):
        assert await refusal(listed(after=cursor)) == await refusal(listed(before=cursor)) == "invalid_value"
    assert await refusal(listed(limit=0)) == "integer_below_min_value"
    assert await refusal(listed(limit=101)) == "integer_above_max_value"


async def test_users_are_removed_page_by_page(members: MembersService) -> None:
    await add(members, "root@example.com")
    foreign = await add(members, "foreign@example.com", **TWO)
    # One that was removed and has come back.
    for _ in range(2):
        first = await add(members, "u0@example.com")
        await remove(members, first.id)
    ids = [(await add(members, f"u{number}@example.com")).id for number in range(5)]
    seen: list[str] = []
    has_more = True
    while has_more:
        page = Page(limit=2, after=seen[-1] if seen else "")
        found = await members.list_users(pb.ListUsersRequest(**ONE, page=page))
        has_more = found.has_more
        seen += [user.id for user in found.users]
        for user in found.users:
            if user.id in ids:
                await remove(members, user.id)
    assert seen[:5] == ids[::-1] and len(seen) == 6
    page = Page(limit=2, after=foreign.id)
    assert await refusal(members.list_users(pb.ListUsersRequest(**ONE, page=page))) == "invalid_value"
    await members.remove_user(pb.RemoveUserRequest(**TWO, user_id=foreign.id, actor=ACTOR))
    assert await refusal(members.list_users(pb.ListUsersRequest(**ONE, page=page))) == "invalid_value"


async def test_a_user_shows_the_projects_and_the_last_use(members: MembersService, database: Database) -> None:
    user = await add(members, "a@example.com")
    await put_in(members, user.id, "proj-b", "owner")
    await put_in(members, user.id, "proj-a", "viewer")
    await add(members, "a@example.com", **TWO)
    await members.add_project_user(
        pb.AddProjectUserRequest(**TWO, project_id="proj-other", user_id=user.id, role="member", actor=ACTOR)
    )
    async with database.connection() as connection:
        for number, (organization, project) in enumerate([("org-1", "proj-a"), ("org-2", "proj-other")]):
            await connection.execute(
                "INSERT INTO api_keys (id, organization_id, project_id, kind, name, hash, redacted, user_id, "
                "last_used_at) VALUES (%s, %s, %s, 'project', '', %s, '', %s, to_timestamp(%s))",
                (f"key_{number}", organization, project, bytes([number]), user.id, 1000 + number),
            )
    found = (await members.get_user(pb.GetUserRequest(**ONE, user_id=user.id))).user
    assert [(one.project_id, one.project_name, one.role) for one in found.projects] == [
        ("proj-a", "A", "viewer"),
        ("proj-b", "B", "owner"),
    ]
    assert found.key_last_used_at == 1000
    assert (await members.list_users(pb.ListUsersRequest(**ONE, page=Page(limit=1)))).users[0] == found


async def test_an_organisation_keeps_an_owner(members: MembersService) -> None:
    owner = await add(members, "owner@example.com", "owner")
    other = await add(members, "other@example.com")
    update = pb.UpdateUserRequest(**ONE, user_id=owner.id, role="reader", actor=ACTOR)
    remove = pb.RemoveUserRequest(**ONE, user_id=owner.id, actor=ACTOR)
    assert await refusal(members.update_user(update)) == "last_owner"
    assert await refusal(members.remove_user(remove)) == "last_owner"
    assert await refusal(add(members, "owner@example.com", "viewer")) == "last_owner"
    # The owner of another organisation does not count.
    await add(members, "other@example.com", "owner", **TWO)
    assert await refusal(members.remove_user(remove)) == "last_owner"
    await members.update_user(pb.UpdateUserRequest(**ONE, user_id=other.id, role="owner", actor=ACTOR))
    assert (await members.update_user(update)).user.role == "reader"
    await members.remove_user(remove)
    assert await refusal(role_of(members, owner.id)) == "user_not_found"


async def test_of_two_owners_that_demote_each_other_one_stays(members: MembersService) -> None:
    owners = [await add(members, f"owner{number}@example.com", "owner") for number in range(2)]
    for round_ in range(10):
        calls = [
            members.update_user(pb.UpdateUserRequest(**ONE, user_id=owner.id, role="reader", actor=ACTOR))
            for owner in owners
        ]
        answers, reasons = await at_once(calls)
        assert (len(answers), reasons) == (1, ["last_owner"]), round_
        assert sorted([await role_of(members, owner.id) for owner in owners]) == ["owner", "reader"]
        for owner in owners:
            await add(members, owner.email, "owner")


async def test_of_owners_that_are_all_removed_one_stays(members: MembersService) -> None:
    owners = [await add(members, f"owner{number}@example.com", "owner") for number in range(8)]
    calls = [members.remove_user(pb.RemoveUserRequest(**ONE, user_id=owner.id, actor=ACTOR)) for owner in owners]
    answers, reasons = await at_once(calls)
    assert (len(answers), reasons) == (7, ["last_owner"])
    assert len((await members.list_users(pb.ListUsersRequest(**ONE, page=Page(limit=9)))).users) == 1


async def test_whoever_leaves_an_organisation_leaves_its_projects(members: MembersService) -> None:
    user = await add(members, "a@example.com")
    await put_in(members, user.id)
    await members.remove_user(pb.RemoveUserRequest(**ONE, user_id=user.id, actor=ACTOR))
    page = await members.list_project_users(pb.ListProjectUsersRequest(**ONE, project_id="proj-a", page=Page(limit=9)))
    assert list(page.users) == []
    assert (await add(members, "a@example.com")).projects == []


@pytest.mark.parametrize("user_id", ["user-none", "\0", ""])
async def test_users_that_are_not_there(members: MembersService, user_id: str) -> None:
    named = {**ONE, "user_id": user_id}
    assert await refusal(members.get_user(pb.GetUserRequest(**named))) == "user_not_found"
    assert await refusal(members.update_user(pb.UpdateUserRequest(**named, role="owner"))) == "user_not_found"
    assert await refusal(members.remove_user(pb.RemoveUserRequest(**named))) == "user_not_found"


async def test_users_of_others_are_not_there(members: MembersService) -> None:
    foreign = await add(members, "a@example.com", "owner", **TWO)
    named = {**ONE, "user_id": foreign.id}
    assert await refusal(members.get_user(pb.GetUserRequest(**named))) == "user_not_found"
    assert await refusal(members.update_user(pb.UpdateUserRequest(**named, role="owner"))) == "user_not_found"
    assert await refusal(members.remove_user(pb.RemoveUserRequest(**named))) == "user_not_found"
    assert await refusal(put_in(members, foreign.id)) == "user_not_found"


# ---------------------------------------------------------------------------------------------- projects


async def test_the_life_of_a_project_user(members: MembersService, database: Database) -> None:
    user = await add(members, "Ann@example.com", name="Ann")
    place = {**ONE, "project_id": "proj-a"}
    added = await members.add_project_user(
        pb.AddProjectUserRequest(**place, email="ann@EXAMPLE.com", role="member", actor=ACTOR)
    )
    assert (added.user.id, added.user.name, added.user.email, added.user.role) == (
        user.id,
        "Ann",
        "Ann@example.com",
        "member",
    )
    assert added.user.added_at > 0
    assert await refusal(put_in(members, user.id)) == "already_member"
    updated = await members.update_project_user(
        pb.UpdateProjectUserRequest(**place, user_id=user.id, role="owner", actor=ACTOR)
    )
    found = await members.get_project_user(pb.GetProjectUserRequest(**place, user_id=user.id))
    assert updated.user == found.user
    assert found.user.role == "owner"
    await members.update_project_user(pb.UpdateProjectUserRequest(**place, user_id=user.id, role="owner", actor=ACTOR))
    await members.remove_project_user(pb.RemoveProjectUserRequest(**place, user_id=user.id, actor=ACTOR))
    assert (
        await refusal(members.get_project_user(pb.GetProjectUserRequest(**place, user_id=user.id))) == "user_not_found"
    )
    assert await role_of(members, user.id) == "reader"
    assert await events(database) == [
        ("user.added", "", {"id": user.id, "data": {"role": "reader"}}),
        ("user.added", "proj-a", {"id": user.id, "data": {"role": "member"}}),
        ("user.updated", "proj-a", {"id": user.id, "changes_requested": {"role": "owner"}}),
        ("user.deleted", "proj-a", {"id": user.id}),
    ]


async def test_project_users_are_listed_by_pages(members: MembersService) -> None:
    ids = [(await add(members, f"u{number}@example.com")).id for number in range(3)]
    for user_id in ids:
        await put_in(members, user_id)
    await put_in(members, ids[0], "proj-b")
    place = {**ONE, "project_id": "proj-a"}
    page = await members.list_project_users(pb.ListProjectUsersRequest(**place, page=Page(limit=2)))
    assert ([user.id for user in page.users], page.has_more) == ([ids[2], ids[1]], True)
    page = await members.list_project_users(pb.ListProjectUsersRequest(**place, page=Page(limit=2, after=ids[1])))
    assert ([user.id for user in page.users], page.has_more) == ([ids[0]], False)
    for cursor in ("\0", "user-none"):
        asked = pb.ListProjectUsersRequest(**place, page=Page(limit=2, after=cursor))
        assert await refusal(members.list_project_users(asked)) == "invalid_value"
    # Whoever has left is a cursor still.
    await members.remove_project_user(pb.RemoveProjectUserRequest(**place, user_id=ids[1], actor=ACTOR))
    page = await members.list_project_users(pb.ListProjectUsersRequest(**place, page=Page(limit=2, after=ids[1])))
    assert ([user.id for user in page.users], page.has_more) == ([ids[0]], False)
    await remove(members, ids[0])
    page = await members.list_project_users(pb.ListProjectUsersRequest(**place, page=Page(limit=2, before=ids[0])))
    assert ([user.id for user in page.users], page.has_more) == ([ids[2]], False)


@pytest.mark.parametrize(
    ("project_id", "reason"),
    [
        ("proj-other", "project_not_found"),
        ("proj-none", "project_not_found"),
        ("\0", "project_not_found"),
        ("proj-old", "project_archived"),
    ],
)
async def test_projects_without_users(members: MembersService, project_id: str, reason: str) -> None:
    user = await add(members, "a@example.com")
    place = {**ONE, "project_id": project_id}
    named = {**place, "user_id": user.id}
    calls: list[Awaitable[Any]] = [
        members.add_project_user(pb.AddProjectUserRequest(**named, role="member", actor=ACTOR)),
        members.get_project_user(pb.GetProjectUserRequest(**named)),
        members.list_project_users(pb.ListProjectUsersRequest(**place, page=Page(limit=1))),
        members.update_project_user(pb.UpdateProjectUserRequest(**named, role="owner", actor=ACTOR)),
        members.remove_project_user(pb.RemoveProjectUserRequest(**named, actor=ACTOR)),
    ]
    assert {await refusal(call) for call in calls} == {reason}


async def test_a_project_user_is_named_once_and_known(members: MembersService) -> None:
    await add(members, "foreign@example.com", **TWO)
    place = {**ONE, "project_id": "proj-a", "role": "member"}

    async def refused(**fields: str) -> str:
        return await refusal(members.add_project_user(pb.AddProjectUserRequest(**{**place, **fields})))

    assert await refused() == "missing_required_parameter"
    assert await refused(user_id="user-1", email="a@example.com") == "invalid_parameter"
    assert await refused(user_id="user-1", role="reader") == "invalid_value"
    assert await refused(user_id="user-1") == await refused(user_id="\0") == "user_not_found"
    assert await refused(email="foreign@example.com") == await refused(email="\0") == "user_not_found"
    named = {**ONE, "project_id": "proj-a", "user_id": "user-1"}
    update = pb.UpdateProjectUserRequest(**named, role="owner", actor=ACTOR)
    assert await refusal(members.update_project_user(update)) == "user_not_found"
    remove = pb.RemoveProjectUserRequest(**named, actor=ACTOR)
    assert await refusal(members.remove_project_user(remove)) == "user_not_found"


async def test_a_user_who_is_put_into_a_project_many_times_at_once_is_in_it_once(members: MembersService) -> None:
    user = await add(members, "a@example.com")
    answers, reasons = await at_once(put_in(members, user.id) for _ in range(8))
    assert (len(answers), reasons) == (1, ["already_member"] * 7)


async def test_nobody_is_put_into_a_project_while_leaving(members: MembersService) -> None:
    for _ in range(5):
        user = await add(members, "a@example.com")
        leaving = members.remove_user(pb.RemoveUserRequest(**ONE, user_id=user.id, actor=ACTOR))
        _, reasons = await at_once([put_in(members, user.id), leaving])
        assert reasons in ([], ["user_not_found"])
