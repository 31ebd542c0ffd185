"""TenantsService, over both wirings: organisations, projects, limits, spending and payments."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.auth.v1.auth_pb2 import ModelPolicy
from modelplane.limits.v1 import limits_pb2 as limits
from modelplane.tenants.v1 import tenants_pb2 as pb
from modelplane.tenants.v1.tenants_api import TenantsService
from services.faults import Fault, InvalidRequest, NotFound
from services.storage import Database
from services.tenants.service import serving
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from services.tenants.tiers import DAY_S, NANODOLLARS
from tests.contract.conftest import Wire

ACTOR = Actor(
    key_id="key_1",
    redacted_key="sk-admin-****abcd",
    owner_id="user-1",
    ip_address="127.0.0.1",
    user_agent="tests",
    request_id="req_1",
)
NOW_S = 1_700_000_000
ALL = Page(limit=100)
# Ids that name nothing: unknown, empty, not possible in the database, and clever.
NOBODY = ("none", "", "a\0", "'; --")


@pytest.fixture
def clock() -> list[float]:
    return [float(NOW_S)]


@pytest.fixture
async def tenants(database: Database, wire: Wire, clock: list[float]) -> AsyncIterator[TenantsService]:
    async with serving(TenantsStore(database), TenantsSettings(), clock=lambda: clock[0]) as service:
        yield await wire(TenantsService, service)


@pytest.fixture
async def mine(tenants: TenantsService) -> pb.CreateOrganizationResponse:
    return await tenants.create_organization(pb.CreateOrganizationRequest(name="Mine", actor=ACTOR))


@pytest.fixture
async def other(tenants: TenantsService) -> pb.CreateOrganizationResponse:
    return await tenants.create_organization(pb.CreateOrganizationRequest(name="Other", actor=ACTOR))


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(Fault) as caught:
        await call
    assert isinstance(caught.value, InvalidRequest | NotFound)
    return caught.value.reason


async def events(tenants: TenantsService, organization_id: str, **filters: Any) -> list[pb.AuditEvent]:
    """The oldest first."""
    page = Page(limit=100, ascending=True)
    request = pb.ListAuditEventsRequest(organization_id=organization_id, page=page, **filters)
    return list((await tenants.list_audit_events(request)).events)


async def last_event(tenants: TenantsService, organization_id: str) -> tuple[str, dict[str, Any]]:
    event = (await events(tenants, organization_id))[-1]
    return event.type, json.loads(event.details_json)


# ----------------------------------------------------------------------------------------- organisations


async def test_the_first_organization(tenants: TenantsService) -> None:
    first = await tenants.bootstrap(pb.BootstrapRequest())
    assert first.created
    organization = (
        await tenants.get_organization(pb.GetOrganizationRequest(organization_id=first.organization_id))
    ).organization
    assert organization.id.startswith("org-") and organization.name == "Default organization"
    assert (organization.usage_tier, organization.tier_pinned) == (5, True)
    project = await get_project(tenants, first.organization_id, first.project_id)
    assert project.id.startswith("proj_") and project.name == "Default project"
    again = await tenants.bootstrap(pb.BootstrapRequest())
    assert again == pb.BootstrapResponse(organization_id=organization.id, project_id=project.id)
    made = await events(tenants, organization.id)
    assert [event.type for event in made] == ["organization.created", "project.created"]
    assert all(event.actor == Actor(user_agent="modelplane") for event in made)


async def test_a_further_organization(tenants: TenantsService, mine: pb.CreateOrganizationResponse) -> None:
    organization = mine.organization
    assert (organization.name, organization.usage_tier, organization.tier_pinned) == ("Mine", 0, False)
    assert (organization.paid_nanodollars, organization.first_paid_at) == (0, 0)
    assert mine.project.name == "Default project" and mine.project.organization_id == organization.id
    assert not (await tenants.bootstrap(pb.BootstrapRequest())).created
    made = await events(tenants, organization.id)
    assert [event.type for event in made] == ["organization.created", "project.created"]
    assert all(event.actor == ACTOR for event in made)


async def test_organizations_by_pages(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse
) -> None:
    page = await tenants.list_organizations(pb.ListOrganizationsRequest(page=Page(limit=1)))
    assert list(page.organizations) == [other.organization] and page.has_more
    page = await tenants.list_organizations(
        pb.ListOrganizationsRequest(page=Page(limit=1, after=other.organization.id))
    )
    assert list(page.organizations) == [mine.organization] and not page.has_more


@pytest.mark.parametrize("organization_id", NOBODY)
async def test_organizations_that_are_not_there(tenants: TenantsService, organization_id: str) -> None:
    of: dict[str, Any] = {"organization_id": organization_id}
    calls = (
        tenants.get_organization(pb.GetOrganizationRequest(**of)),
        tenants.pin_tier(pb.PinTierRequest(**of, usage_tier=1)),
        tenants.record_payment(pb.RecordPaymentRequest(**of, payment_id="p", amount_nanodollars=1)),
        tenants.create_project(pb.CreateProjectRequest(**of, name="n")),
        tenants.get_limits(pb.GetLimitsRequest(**of)),
        tenants.set_limits(pb.SetLimitsRequest(**of)),
        tenants.get_spend_limit(pb.GetSpendLimitRequest(**of)),
        tenants.set_spend_limit(pb.SetSpendLimitRequest(**of, spend_limit=pb.SpendLimit(threshold_cents=1))),
        tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**of, page=ALL)),
    )
    for call in calls:
        assert await refused(call) == "organization_not_found"
    assert not (await tenants.list_projects(pb.ListProjectsRequest(**of, page=ALL))).projects
    assert not (await tenants.list_audit_events(pb.ListAuditEventsRequest(**of, page=ALL))).events


# ---------------------------------------------------------------------------------------------- projects


async def create_project(tenants: TenantsService, organization_id: str, name: str) -> pb.Project:
    request = pb.CreateProjectRequest(organization_id=organization_id, name=name, actor=ACTOR)
    return (await tenants.create_project(request)).project


async def get_project(tenants: TenantsService, organization_id: str, project_id: str) -> pb.Project:
    request = pb.GetProjectRequest(organization_id=organization_id, project_id=project_id)
    return (await tenants.get_project(request)).project


async def archive(tenants: TenantsService, organization_id: str, project_id: str) -> pb.Project:
    request = pb.ArchiveProjectRequest(organization_id=organization_id, project_id=project_id, actor=ACTOR)
    return (await tenants.archive_project(request)).project


async def test_a_project_from_start_to_end(tenants: TenantsService, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    made = await create_project(tenants, of, "One")
    assert (made.name, made.weight, made.archived_at, list(made.ip_ranges)) == ("One", 1, 0, [])
    assert await get_project(tenants, of, made.id) == made
    assert await last_event(tenants, of) == (
        "project.created",
        {"id": made.id, "data": {"name": "One", "title": "One"}},
    )
    request = pb.UpdateProjectRequest(
        organization_id=of,
        project_id=made.id,
        name="Two",
        weight=1000,
        external_key_id="ext",
        ip_ranges=pb.IpRanges(blocks=["10.1.2.3/8", "::1", "10.0.0.0/8"]),
        actor=ACTOR,
    )
    updated = (await tenants.update_project(request)).project
    assert (updated.name, updated.weight, updated.external_key_id) == ("Two", 1000, "ext")
    assert list(updated.ip_ranges) == ["10.0.0.0/8", "::1/128"]
    assert await get_project(tenants, of, made.id) == updated
    changes = {"title": "Two", "weight": 1000, "external_key_id": "ext", "ip_ranges": ["10.0.0.0/8", "::1/128"]}
    assert await last_event(tenants, of) == ("project.updated", {"id": made.id, "changes_requested": changes})
    archived = await archive(tenants, of, made.id)
    assert archived.archived_at >= archived.created_at > 0
    assert await archive(tenants, of, made.id) == archived
    assert await last_event(tenants, of) == ("project.archived", {"id": made.id})
    assert [event.type for event in await events(tenants, of)].count("project.archived") == 1


async def test_archived_projects_are_listed_when_asked(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse
) -> None:
    of = mine.organization.id
    gone = await archive(tenants, of, (await create_project(tenants, of, "Gone")).id)
    listed = await tenants.list_projects(pb.ListProjectsRequest(organization_id=of, page=ALL))
    assert list(listed.projects) == [mine.project]
    listed = await tenants.list_projects(pb.ListProjectsRequest(organization_id=of, include_archived=True, page=ALL))
    assert list(listed.projects) == [gone, mine.project]


@pytest.mark.parametrize(
    ("mode", "word"), [(ModelPolicy.MODE_ALLOW_LIST, "allow_list"), (ModelPolicy.MODE_DENY_LIST, "deny_list")]
)
async def test_which_models_a_project_may_use(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, mode: ModelPolicy.Mode, word: str
) -> None:
    of: dict[str, Any] = {"organization_id": mine.organization.id, "project_id": mine.project.id}
    policy = ModelPolicy(mode=mode, models=["a", "b", "a"])
    project = (await tenants.set_model_policy(pb.SetModelPolicyRequest(**of, models=policy, actor=ACTOR))).project
    assert project.models == ModelPolicy(mode=mode, models=["a", "b"])
    kind, details = await last_event(tenants, mine.organization.id)
    assert kind == "project.updated"
    assert details["changes_requested"] == {"model_permissions": {"mode": word, "model_ids": ["a", "b"]}}
    await tenants.update_project(pb.UpdateProjectRequest(**of, name="Renamed"))
    assert (await get_project(tenants, **of)).models == project.models
    project = (await tenants.set_model_policy(pb.SetModelPolicyRequest(**of))).project
    assert project.models == ModelPolicy()


ProjectCall = Callable[[TenantsService, dict[str, Any]], Awaitable[object]]
SPEND_ALERT = pb.SpendAlert(threshold_cents=100, email_recipients=["a@example.com"])
CHANGES: list[ProjectCall] = [
    lambda tenants, of: tenants.update_project(pb.UpdateProjectRequest(**of, name="x")),
    lambda tenants, of: tenants.set_model_policy(pb.SetModelPolicyRequest(**of)),
    lambda tenants, of: tenants.set_limits(pb.SetLimitsRequest(**of)),
    lambda tenants, of: tenants.set_spend_limit(
        pb.SetSpendLimitRequest(**of, spend_limit=pb.SpendLimit(threshold_cents=1))
    ),
    lambda tenants, of: tenants.delete_spend_limit(pb.DeleteSpendLimitRequest(**of)),
    lambda tenants, of: tenants.put_spend_alert(pb.PutSpendAlertRequest(**of, spend_alert=SPEND_ALERT)),
    lambda tenants, of: tenants.delete_spend_alert(pb.DeleteSpendAlertRequest(**of, spend_alert_id="alert_1")),
]
READS: list[ProjectCall] = [
    lambda tenants, of: tenants.get_project(pb.GetProjectRequest(**of)),
    lambda tenants, of: tenants.archive_project(pb.ArchiveProjectRequest(**of)),
    lambda tenants, of: tenants.get_limits(pb.GetLimitsRequest(**of)),
    lambda tenants, of: tenants.get_spend_limit(pb.GetSpendLimitRequest(**of)),
    lambda tenants, of: tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**of, page=ALL)),
]


@pytest.mark.parametrize("number", range(len(CHANGES) + len(READS)))
async def test_projects_of_others_are_not_there(
    tenants: TenantsService,
    mine: pb.CreateOrganizationResponse,
    other: pb.CreateOrganizationResponse,
    number: int,
) -> None:
    call = (CHANGES + READS)[number]
    before = await get_project(tenants, other.organization.id, other.project.id)
    for project_id in (other.project.id, "none", "a\0", "'; --"):
        of = {"organization_id": mine.organization.id, "project_id": project_id}
        assert await refused(call(tenants, of)) == "project_not_found"
    assert await get_project(tenants, other.organization.id, other.project.id) == before


@pytest.mark.parametrize("number", range(len(CHANGES)))
async def test_an_archived_project_stays_as_it_is(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, number: int
) -> None:
    of = {"organization_id": mine.organization.id, "project_id": mine.project.id}
    archived = await archive(tenants, **of)
    assert await refused(CHANGES[number](tenants, of)) == "project_archived"
    assert await get_project(tenants, **of) == archived


# ------------------------------------------------------------------------------------------------ limits

RPM, TPM = limits.DIMENSION_REQUESTS_PER_MINUTE, limits.DIMENSION_TOKENS_PER_MINUTE


def override(model: str, dimension: limits.Dimension, limit: int, *, project: bool = False) -> limits.Override:
    scope = limits.SCOPE_PROJECT if project else limits.SCOPE_ORGANIZATION
    return limits.Override(scope=scope, model=model, dimension=dimension, limit=limit)


async def test_limits_of_both_scopes(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse
) -> None:
    of, project_id = mine.organization.id, mine.project.id
    ours = [override("a", RPM, 5), override("a", TPM, 0), override("b", RPM, 2**63 - 1)]
    theirs = [override("a", RPM, 3, project=True)]
    await tenants.set_limits(pb.SetLimitsRequest(organization_id=of, overrides=reversed(ours), actor=ACTOR))
    made = [(event.type, json.loads(event.details_json)) for event in (await events(tenants, of))[-2:]]
    assert made == [
        (
            "rate_limit.updated",
            {"id": "rl-a", "changes_requested": {"max_requests_per_1_minute": 5, "max_tokens_per_1_minute": 0}},
        ),
        ("rate_limit.updated", {"id": "rl-b", "changes_requested": {"max_requests_per_1_minute": 2**63 - 1}}),
    ]
    await tenants.set_limits(pb.SetLimitsRequest(organization_id=of, project_id=project_id, overrides=theirs))
    got = await tenants.get_limits(pb.GetLimitsRequest(organization_id=of))
    assert (got.usage_tier, list(got.overrides)) == (0, ours)
    got = await tenants.get_limits(pb.GetLimitsRequest(organization_id=of, project_id=project_id))
    assert list(got.overrides) == ours + theirs
    assert not (await tenants.get_limits(pb.GetLimitsRequest(organization_id=other.organization.id))).overrides

    gone = [override("a", RPM, 0), override("c", RPM, 0)]
    await tenants.set_limits(pb.SetLimitsRequest(organization_id=of, overrides=gone, clear=True, actor=ACTOR))
    got = await tenants.get_limits(pb.GetLimitsRequest(organization_id=of, project_id=project_id))
    assert list(got.overrides) == ours[1:] + theirs
    # Of `c` there was none.
    assert await last_event(tenants, of) == (
        "rate_limit.deleted",
        {"id": "rl-a", "data": {"max_requests_per_1_minute": 5}},
    )


@pytest.mark.parametrize(
    "wrong",
    [
        override("", RPM, 1),
        override("a\0", RPM, 1),
        override("a", RPM, -1),
        override("a", limits.DIMENSION_UNSPECIFIED, 1),
        override("a", RPM, 1, project=True),
        limits.Override(model="a", dimension=RPM, limit=1),
        override("good", RPM, 1),
    ],
)
async def test_limits_are_set_all_or_none(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, wrong: limits.Override
) -> None:
    overrides = [override("good", RPM, 1), wrong]
    of = mine.organization.id
    with pytest.raises(InvalidRequest):
        await tenants.set_limits(pb.SetLimitsRequest(organization_id=of, overrides=overrides))
    assert not (await tenants.get_limits(pb.GetLimitsRequest(organization_id=of))).overrides


# ---------------------------------------------------------------------------------------------- spending


@pytest.mark.parametrize("of_project", [False, True])
async def test_a_spend_limit(tenants: TenantsService, mine: pb.CreateOrganizationResponse, of_project: bool) -> None:
    of: dict[str, Any] = {"organization_id": mine.organization.id, "project_id": mine.project.id if of_project else ""}
    sibling = of | {"project_id": "" if of_project else mine.project.id}
    got = await tenants.get_spend_limit(pb.GetSpendLimitRequest(**of))
    assert not got.HasField("spend_limit")
    assert await refused(tenants.delete_spend_limit(pb.DeleteSpendLimitRequest(**of))) == "spend_limit_not_found"
    for cents in (500, 700):
        spend_limit = pb.SpendLimit(threshold_cents=cents)
        request = pb.SetSpendLimitRequest(**of, spend_limit=spend_limit, actor=ACTOR)
        assert (await tenants.set_spend_limit(request)).spend_limit == spend_limit
        assert (await tenants.get_spend_limit(pb.GetSpendLimitRequest(**of))).spend_limit == spend_limit
    assert not (await tenants.get_spend_limit(pb.GetSpendLimitRequest(**sibling))).HasField("spend_limit")
    await tenants.delete_spend_limit(pb.DeleteSpendLimitRequest(**of, actor=ACTOR))
    assert not (await tenants.get_spend_limit(pb.GetSpendLimitRequest(**of))).HasField("spend_limit")
    made = [event.type for event in await events(tenants, mine.organization.id)][2:]
    assert made == ["spend_limit.updated", "spend_limit.updated", "spend_limit.deleted"]


@pytest.mark.parametrize("of_project", [False, True])
async def test_spend_alerts(
    tenants: TenantsService,
    mine: pb.CreateOrganizationResponse,
    other: pb.CreateOrganizationResponse,
    of_project: bool,
) -> None:
    of: dict[str, Any] = {"organization_id": mine.organization.id, "project_id": mine.project.id if of_project else ""}

    async def put(alert: pb.SpendAlert) -> pb.SpendAlert:
        return (
            await tenants.put_spend_alert(pb.PutSpendAlertRequest(**of, spend_alert=alert, actor=ACTOR))
        ).spend_alert

    first = await put(SPEND_ALERT)
    assert first.id.startswith("alert_") and first.created_at and not SPEND_ALERT.id
    second = await put(pb.SpendAlert(webhook_url="https://example.com/secret", subject_prefix="Hey"))
    listed = await tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**of, page=ALL))
    assert list(listed.spend_alerts) == [second, first]
    second.threshold_cents = 7
    assert await put(second) == second
    kind, details = await last_event(tenants, mine.organization.id)
    assert kind == "spend_alert.updated" and details["changes_requested"]["threshold_amount"] == 7
    assert "secret" not in json.dumps(details)
    got = await tenants.get_spend_alert(pb.GetSpendAlertRequest(**of, spend_alert_id=second.id))
    assert got.spend_alert == second

    elsewhere = (
        of | {"project_id": "" if of_project else mine.project.id},
        {"organization_id": other.organization.id, "project_id": other.project.id if of_project else ""},
    )
    for owner, alert_id in ((elsewhere[0], second.id), (elsewhere[1], second.id), *((of, name) for name in NOBODY)):
        calls = [
            tenants.get_spend_alert(pb.GetSpendAlertRequest(**owner, spend_alert_id=alert_id)),
            tenants.delete_spend_alert(pb.DeleteSpendAlertRequest(**owner, spend_alert_id=alert_id)),
        ]
        if alert_id:
            alert = pb.SpendAlert(id=alert_id, email_recipients=["a@example.com"])
            calls.append(tenants.put_spend_alert(pb.PutSpendAlertRequest(**owner, spend_alert=alert)))
        for call in calls:
            assert await refused(call) == "spend_alert_not_found"

    await tenants.delete_spend_alert(pb.DeleteSpendAlertRequest(**of, spend_alert_id=second.id, actor=ACTOR))
    listed = await tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**of, page=ALL))
    assert list(listed.spend_alerts) == [first]
    page = Page(limit=1, after=second.id)
    listed = await tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**of, page=page))
    assert list(listed.spend_alerts) == [first]
    for owner in elsewhere:
        assert (
            await refused(tenants.list_spend_alerts(pb.ListSpendAlertsRequest(**owner, page=page))) == "invalid_value"
        )


# ---------------------------------------------------------------------------------------------- payments


async def pay(tenants: TenantsService, organization_id: str, payment_id: str, dollars: int) -> pb.Organization:
    request = pb.RecordPaymentRequest(
        organization_id=organization_id,
        payment_id=payment_id,
        amount_nanodollars=dollars * NANODOLLARS,
        actor=ACTOR,
    )
    return (await tenants.record_payment(request)).organization


async def test_payments_raise_the_tier_at_once(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, clock: list[float]
) -> None:
    of = mine.organization.id
    paid = await pay(tenants, of, "p1", 4)
    assert (paid.usage_tier, paid.paid_nanodollars, paid.first_paid_at) == (0, 4 * NANODOLLARS, NOW_S)
    assert (await pay(tenants, of, "p2", 1)).usage_tier == 1
    made = (await events(tenants, of))[-3:]
    assert [event.type for event in made] == [
        "organization.payment.recorded",
        "organization.payment.recorded",
        "organization.usage_tier.updated",
    ]
    assert json.loads(made[1].details_json) == {
        "id": "p2",
        "data": {"amount_nanodollars": NANODOLLARS, "paid_nanodollars": 5 * NANODOLLARS},
    }
    assert json.loads(made[2].details_json) == {
        "id": of,
        "changes_requested": {"usage_tier": {"from": 0, "to": 1}, "tier_pinned": False},
    }
    clock[0] += 30 * DAY_S
    raised = await pay(tenants, of, "p3", 995)
    assert (raised.usage_tier, raised.first_paid_at) == (5, NOW_S)
    assert (await tenants.get_organization(pb.GetOrganizationRequest(organization_id=of))).organization == raised


async def test_a_payment_counts_once(tenants: TenantsService, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    once = await pay(tenants, of, "p", 5)
    count = len(await events(tenants, of))
    assert await pay(tenants, of, "p", 5) == once
    assert await refused(pay(tenants, of, "p", 6)) == "invalid_value"
    assert len(await events(tenants, of)) == count


async def test_a_refund_lowers_the_tier(tenants: TenantsService, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    assert (await pay(tenants, of, "p1", 5)).usage_tier == 1
    lowered = await pay(tenants, of, "r1", -1)
    assert (lowered.usage_tier, lowered.paid_nanodollars, lowered.first_paid_at) == (0, 4 * NANODOLLARS, NOW_S)


async def test_a_pinned_tier_stays(tenants: TenantsService, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    request = pb.PinTierRequest(organization_id=of, usage_tier=0, actor=ACTOR)
    pinned = (await tenants.pin_tier(request)).organization
    assert (pinned.usage_tier, pinned.tier_pinned) == (0, True)
    paid = await pay(tenants, of, "p", 5)
    assert (paid.usage_tier, paid.paid_nanodollars) == (0, 5 * NANODOLLARS)
    for wrong in (-1, 6):
        with pytest.raises(InvalidRequest):
            await tenants.pin_tier(pb.PinTierRequest(organization_id=of, usage_tier=wrong))
    freed = (await tenants.pin_tier(pb.PinTierRequest(organization_id=of, actor=ACTOR))).organization
    assert (freed.usage_tier, freed.tier_pinned) == (1, False)
    assert await last_event(tenants, of) == (
        "organization.usage_tier.updated",
        {"id": of, "changes_requested": {"usage_tier": {"from": 0, "to": 1}, "tier_pinned": False}},
    )


# -------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("limit", [-1, 0, 101])
async def test_pages_of_no_or_too_many_rows(
    tenants: TenantsService, mine: pb.CreateOrganizationResponse, limit: int
) -> None:
    of, page = mine.organization.id, Page(limit=limit)
    calls = (
        tenants.list_organizations(pb.ListOrganizationsRequest(page=page)),
        tenants.list_projects(pb.ListProjectsRequest(organization_id=of, page=page)),
        tenants.list_spend_alerts(pb.ListSpendAlertsRequest(organization_id=of, page=page)),
        tenants.list_audit_events(pb.ListAuditEventsRequest(organization_id=of, page=page)),
    )
    for call in calls:
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert caught.value.param == "limit"
