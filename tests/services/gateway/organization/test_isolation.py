"""Every endpoint there is, called by those who may not: nobody learns of what is not theirs, and nothing changes.

An endpoint that these tests cannot call rightly fails them: see `walk`.
"""

import pytest

from modelplane.auth.v1 import auth_pb2
from modelplane.tenants.v1 import tenants_pb2
from services.scopes import SCOPES
from tests.services.gateway.organization.conftest import Console, Organization
from tests.services.gateway.organization.walk import NOBODYS, Walk, begin, state


@pytest.fixture
async def walk(console: Console, mine: Organization, other: Organization) -> Walk:
    return await begin(console, mine, other)


async def test_a_right_key_is_let_in_everywhere(walk: Walk) -> None:
    """Without this the rest would show nothing: each of these calls is one that can succeed."""
    assert len(walk.endpoints) > 60
    for endpoint in walk.endpoints:
        status, _, text = await walk.call(walk.key(walk.mine, endpoint), endpoint, walk.ids)
        assert status == 200, (endpoint, text)


async def test_nobody_gets_in_without_a_key(walk: Walk) -> None:
    before = await state(walk.console, walk.mine.id)
    for endpoint in walk.endpoints:
        for key in ("", "sk-proj-unknown", "sk-admin-unknown"):
            assert (await walk.call(key, endpoint, walk.ids))[0] == 401, endpoint
    assert await state(walk.console, walk.mine.id) == before


async def test_another_organisation_finds_nothing(walk: Walk) -> None:
    before = await state(walk.console, walk.mine.id)
    for endpoint in walk.endpoints:
        status, code, text = await walk.call(walk.key(walk.other, endpoint), endpoint, walk.ids)
        named = endpoint.parameters - {"model"}
        if named:
            assert (status, str(code).endswith("_not_found")) == (404, True), (endpoint, text)
            nobodys = dict.fromkeys(walk.ids, "nobodys") | {"model": walk.ids["model"]}
            unknown = await walk.call(walk.key(walk.other, endpoint), endpoint, nobodys)
            assert unknown[:2] == (status, code), endpoint
        else:
            assert status == 200 and (not endpoint.parameters or endpoint.operation in NOBODYS), (endpoint, text)
            assert not [secret for secret in walk.secrets() if secret in text], endpoint
    assert await state(walk.console, walk.mine.id) == before


async def test_the_own_project_is_no_way_to_what_another_organisation_has(walk: Walk) -> None:
    before = await state(walk.console, walk.mine.id)
    mixed = {**walk.ids, "project_id": walk.others["project_id"]}
    walked = [
        one for one in walk.endpoints if "project_id" in one.parameters and one.parameters - {"project_id", "model"}
    ]
    assert len(walked) > 10
    for endpoint in walked:
        status, code, text = await walk.call(walk.key(walk.other, endpoint), endpoint, mixed)
        assert (status, str(code).endswith("_not_found")) == (404, True), (endpoint, text)
    assert await state(walk.console, walk.mine.id) == before


async def test_another_project_finds_nothing(walk: Walk) -> None:
    """Of the same organisation, with a key that may do everything in its own."""
    made = await walk.console.tenants.create_project(
        tenants_pb2.CreateProjectRequest(organization_id=walk.mine.id, name="Second")
    )
    before = await state(walk.console, walk.mine.id)
    key = walk.console.key(
        "sk-proj-second",
        organization_id=walk.mine.id,
        project_id=made.project.id,
        key_id="key-second",
        kind=auth_pb2.KEY_KIND_PROJECT,
    )
    for endpoint in walk.endpoints:
        if SCOPES[endpoint.scope].administrative:
            continue
        status, _, text = await walk.call(key, endpoint, walk.ids)
        if endpoint.parameters - {"model"}:
            assert status == 404, endpoint
        assert walk.ids["completion_id"] not in text or status == 404, endpoint
    assert await state(walk.console, walk.mine.id) == before


async def test_a_key_of_the_wrong_kind_gets_nowhere(walk: Walk) -> None:
    before = await state(walk.console, walk.mine.id)
    for endpoint in walk.endpoints:
        wrong = walk.mine.project_key if SCOPES[endpoint.scope].administrative else walk.mine.admin_key
        refused = (await walk.call(wrong, endpoint, walk.ids))[:2]
        assert refused == (403, "insufficient_permissions"), endpoint
    assert await state(walk.console, walk.mine.id) == before


async def test_a_key_without_the_scope_gets_nowhere(walk: Walk) -> None:
    """Even when it has all the others."""
    before = await state(walk.console, walk.mine.id)
    for endpoint in walk.endpoints:
        scopes = [scope for scope in SCOPES if scope != endpoint.scope]
        key = walk.key(walk.mine, endpoint, access=auth_pb2.ACCESS_RESTRICTED, scopes=scopes)
        assert (await walk.call(key, endpoint, walk.ids))[:2] == (403, "missing_scope"), endpoint
    assert await state(walk.console, walk.mine.id) == before


async def test_a_reading_key_changes_nothing(walk: Walk) -> None:
    before = await state(walk.console, walk.mine.id)
    for endpoint in walk.endpoints:
        key = walk.key(walk.mine, endpoint, access=auth_pb2.ACCESS_READ_ONLY)
        status, code, _ = await walk.call(key, endpoint, walk.ids)
        assert (status, code) == ((200, None) if endpoint.is_read else (403, "missing_scope")), endpoint
        assert endpoint.is_read == (endpoint.method == "GET"), endpoint
    assert await state(walk.console, walk.mine.id) == before
