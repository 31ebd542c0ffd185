"""Projects, what they may use and their limits, as the official SDK administers them."""

from typing import Any

import openai
import pytest
from openai.resources.admin.organization import AsyncOrganization

from modelplane.limits.v1 import limits_pb2
from modelplane.limits.v1.limits_pb2 import Override
from modelplane.tenants.v1.tenants_pb2 import PinTierRequest, SetLimitsRequest
from tests.services.gateway.organization.conftest import Console, Organization


async def test_the_life_of_a_project(admin: AsyncOrganization) -> None:
    projects = admin.projects
    made = await projects.create(name="Research", external_key_id="k-1")
    assert (made.name, made.status, made.archived_at, made.external_key_id) == ("Research", "active", None, "k-1")
    assert made.id.startswith("proj_")
    assert (await projects.retrieve(made.id)).to_dict() == made.to_dict()
    updated = await projects.update(made.id, name="Search")
    assert updated.to_dict() == {**made.to_dict(), "name": "Search"}
    archived = await projects.archive(made.id)
    assert archived.status == "archived" and archived.archived_at
    assert (await projects.archive(made.id)).to_dict() == archived.to_dict()
    with pytest.raises(openai.BadRequestError) as raised:
        await projects.update(made.id, name="Again")
    assert raised.value.code == "project_archived"


async def test_projects_are_listed(admin: AsyncOrganization, mine: Organization, other: Organization) -> None:
    ids = [mine.project_id] + [(await admin.projects.create(name=f"P{number}")).id for number in range(3)]
    await admin.projects.archive(ids[1])
    active = [ids[3], ids[2], ids[0]]
    assert [project.id async for project in admin.projects.list(limit=1)] == active
    every = [project.id async for project in admin.projects.list(limit=2, include_archived=True)]
    assert every == ids[::-1]
    page = await admin.projects.list(limit=2)
    assert (page.has_more, page.last_id) == (True, active[1])


async def test_projects_that_cannot_be(console: Console, mine: Organization) -> None:
    async def refused(body: dict[str, Any], path: str = "/projects") -> tuple[int, str, str | None]:
        return await console.refused(mine.admin_key, "POST", path, body)

    assert await refused({}) == (400, "missing_required_parameter", "name")
    assert await refused({"name": ""}) == (400, "empty_string", "name")
    assert await refused({"name": "x" * 257}) == (400, "string_above_max_length", "name")
    assert await refused({"name": "x", "color": "red"}) == (400, "unknown_parameter", "color")
    assert await refused({"name": "x", "residency": "EU_STORAGE_PROCESSING"}) == (
        400,
        "unsupported_value",
        "residency",
    )
    assert await refused({"name": "x", "residency": "MOON"}) == (400, "invalid_value", "residency")
    assert await refused({"name": 1}, f"/projects/{mine.project_id}") == (400, "invalid_type", "name")
    for query, code in (("include_archived=1", "invalid_type"), ("order=up", "invalid_value")):
        assert (await console.refused(mine.admin_key, "GET", f"/projects?{query}"))[:2] == (400, code)


async def test_model_permissions(admin: AsyncOrganization, mine: Organization) -> None:
    permissions = admin.projects.model_permissions
    free = await permissions.retrieve(mine.project_id)
    assert (free.mode, free.api_model_ids) == ("deny_list", [])
    allowed = await permissions.update(mine.project_id, mode="allow_list", model_ids=["small", "large"])
    assert (allowed.mode, allowed.api_model_ids) == ("allow_list", ["small", "large"])
    assert (await permissions.retrieve(mine.project_id)).to_dict() == allowed.to_dict()
    assert (await permissions.delete(mine.project_id)).deleted
    assert (await permissions.retrieve(mine.project_id)).to_dict() == free.to_dict()


async def test_rate_limits_are_those_in_force(console: Console, admin: AsyncOrganization, mine: Organization) -> None:
    await console.tenants.pin_tier(PinTierRequest(organization_id=mine.id, usage_tier=1))
    limits = admin.projects.rate_limits
    found = {limit.model: limit async for limit in limits.list_rate_limits(mine.project_id, limit=2)}
    assert list(found) == ["dall-e", "large", "small"]
    small = found["small"]
    assert (small.id, small.max_requests_per_1_minute, small.max_tokens_per_1_minute) == ("rl-small", 500, 200_000)
    assert (small.max_requests_per_1_day, small.batch_1_day_max_input_tokens) == (10_000, 2_000_000)
    assert (small.max_images_per_1_minute, found["dall-e"].max_images_per_1_minute) == (None, 5)
    before = await limits.list_rate_limits(mine.project_id, before="rl-small", limit=1)
    assert [limit.model for limit in before.data] == ["large"] and before.has_more


async def test_a_rate_limit_is_changed_in_part_and_for_its_group(
    console: Console, admin: AsyncOrganization, mine: Organization
) -> None:
    await console.tenants.pin_tier(PinTierRequest(organization_id=mine.id, usage_tier=1))
    limits = admin.projects.rate_limits
    place: Any = {"project_id": mine.project_id}
    changed = await limits.update_rate_limit("rl-small", **place, max_requests_per_1_minute=7)
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (7, 200_000)
    changed = await limits.update_rate_limit("rl-large", **place, max_tokens_per_1_minute=0)
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (7, 0)
    listed = await limits.list_rate_limits(mine.project_id)
    assert [limit.max_requests_per_1_minute for limit in listed.data] == [500, 7, 7]
    nothing = await limits.update_rate_limit("rl-large", **place)
    assert nothing.to_dict() == changed.to_dict()


async def test_no_project_gets_more_than_its_organisation(
    console: Console, admin: AsyncOrganization, mine: Organization
) -> None:
    override = Override(
        scope=limits_pb2.SCOPE_ORGANIZATION,
        model="small",
        dimension=limits_pb2.DIMENSION_REQUESTS_PER_MINUTE,
        limit=20,
    )
    await console.tenants.set_limits(SetLimitsRequest(organization_id=mine.id, overrides=[override]))
    path = f"/projects/{mine.project_id}/rate_limits/rl-small"

    async def refused(body: dict[str, Any]) -> tuple[int, str, str | None]:
        return await console.refused(mine.admin_key, "POST", path, body)

    rpm = "max_requests_per_1_minute"
    assert await refused({rpm: 21}) == (400, "integer_above_max_value", rpm)
    assert await refused({rpm: -1}) == (400, "integer_below_min_value", rpm)
    assert await refused({rpm: 2**60}) == (400, "integer_above_max_value", rpm)
    assert await refused({rpm: "20"}) == (400, "invalid_type", rpm)
    assert await refused({"max_tokens_per_1_day": 1}) == (400, "unknown_parameter", "max_tokens_per_1_day")
    at_most = await admin.projects.rate_limits.update_rate_limit(
        "rl-small", project_id=mine.project_id, max_requests_per_1_minute=20
    )
    assert at_most.max_requests_per_1_minute == 20
    nothing = await console.refused(mine.admin_key, "POST", path.replace("small", "owner/none"), {rpm: 1})
    assert nothing[:2] == (404, "rate_limit_not_found")
