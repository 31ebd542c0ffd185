"""Payments and usage tiers: what is told often or at once counts once; age alone raises a tier, and once."""

import asyncio
import json

import pytest

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.tenants.v1 import tenants_pb2 as pb
from services.faults import InvalidRequest
from services.storage import Database
from services.tenants.payments import Payments
from services.tenants.service import Tenants, serving
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from services.tenants.tiers import DAY_S, NANODOLLARS
from tests.services.tenants.conftest import Clock, events, pay

RAISED = "organization.usage_tier.updated"


async def organization(tenants: Tenants, organization_id: str) -> pb.Organization:
    return (await tenants.get_organization(pb.GetOrganizationRequest(organization_id=organization_id))).organization


async def test_a_payment_id_is_the_organizations_own(
    tenants: Tenants, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse
) -> None:
    await pay(tenants, mine.organization.id, "p", 5)
    assert (await pay(tenants, other.organization.id, "p", 50)).paid_nanodollars == 50 * NANODOLLARS


async def test_a_refund_that_comes_first_is_no_first_payment(
    tenants: Tenants, mine: pb.CreateOrganizationResponse
) -> None:
    refunded = await pay(tenants, mine.organization.id, "r1", -5)
    assert (refunded.usage_tier, refunded.paid_nanodollars, refunded.first_paid_at) == (0, -5 * NANODOLLARS, 0)


@pytest.mark.parametrize(("payment_id", "amount"), [("p", 0), ("", 1), ("a\0", 1), ("p" * 257, 1), ("p", 2**63 - 1)])
async def test_payments_that_are_none(
    tenants: Tenants, mine: pb.CreateOrganizationResponse, payment_id: str, amount: int
) -> None:
    of = mine.organization.id
    before = await pay(tenants, of, "before", 1)
    request = pb.RecordPaymentRequest(organization_id=of, payment_id=payment_id, amount_nanodollars=amount)
    with pytest.raises(InvalidRequest):
        await tenants.record_payment(request)
    assert (await tenants.get_organization(pb.GetOrganizationRequest(organization_id=of))).organization == before


async def test_one_payment_told_twenty_times_at_once_counts_once(
    tenants: Tenants, mine: pb.CreateOrganizationResponse
) -> None:
    of = mine.organization.id
    answers = await asyncio.gather(*(pay(tenants, of, "p", 5) for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0].paid_nanodollars, answers[0].usage_tier) == (5 * NANODOLLARS, 1)
    made = [event.type for event in await events(tenants, of)]
    assert made.count("organization.payment.recorded") == made.count(RAISED) == 1


async def test_twenty_payments_at_once_all_count(tenants: Tenants, mine: pb.CreateOrganizationResponse) -> None:
    of = mine.organization.id
    await asyncio.gather(*(pay(tenants, of, f"p{number}", 1) for number in range(20)))
    found = await organization(tenants, of)
    assert (found.paid_nanodollars, found.usage_tier) == (20 * NANODOLLARS, 1)
    assert [event.type for event in await events(tenants, of)].count(RAISED) == 1


async def test_age_raises_a_tier_to_the_second(
    tenants: Tenants, mine: pb.CreateOrganizationResponse, clock: Clock
) -> None:
    of = mine.organization.id
    await pay(tenants, of, "p", 1000)
    first_s = clock.now_s
    tiers = []
    for days in (7, 14, 30):
        for early_s in (0.5, 0):
            clock.now_s = first_s + days * DAY_S - early_s
            await tenants.graduate()
            tiers.append((await organization(tenants, of)).usage_tier)
    assert tiers == [1, 3, 3, 4, 4, 5]
    moves = [event for event in await events(tenants, of) if event.type == RAISED][1:]
    assert [json.loads(event.details_json)["changes_requested"]["usage_tier"] for event in moves] == [
        {"from": 1, "to": 3},
        {"from": 3, "to": 4},
        {"from": 4, "to": 5},
    ]
    assert all(event.actor == Actor(user_agent="modelplane") for event in moves)


async def test_a_pinned_tier_and_too_little_money_are_not_raised(
    tenants: Tenants, mine: pb.CreateOrganizationResponse, other: pb.CreateOrganizationResponse, clock: Clock
) -> None:
    await pay(tenants, mine.organization.id, "p", 1000)
    await tenants.pin_tier(pb.PinTierRequest(organization_id=mine.organization.id, usage_tier=2))
    await pay(tenants, other.organization.id, "p", 49)
    clock.now_s += 60 * DAY_S
    await tenants.graduate()
    assert (await organization(tenants, mine.organization.id)).usage_tier == 2
    assert (await organization(tenants, other.organization.id)).usage_tier == 1


async def test_many_are_raised_once_by_several_processes(database: Database, tenants: Tenants, clock: Clock) -> None:
    ids = []
    for number in range(12):
        made = await tenants.create_organization(pb.CreateOrganizationRequest(name=f"O{number}"))
        await pay(tenants, made.organization.id, "p", 100)
        ids.append(made.organization.id)
    clock.now_s += 7 * DAY_S
    settings = TenantsSettings(graduation_rows=5)
    processes = [Payments(TenantsStore(database), settings, clock=clock) for _ in range(4)]
    await asyncio.gather(*(process.graduate() for process in processes))
    await processes[0].graduate()
    for of in ids:
        assert (await organization(tenants, of)).usage_tier == 3
        assert [event.type for event in await events(tenants, of)].count(RAISED) == 2


async def test_who_is_being_changed_holds_up_nobody(
    database: Database,
    tenants: Tenants,
    mine: pb.CreateOrganizationResponse,
    other: pb.CreateOrganizationResponse,
    clock: Clock,
) -> None:
    for made in (mine, other):
        await pay(tenants, made.organization.id, "p", 100)
    clock.now_s += 7 * DAY_S
    async with TenantsStore(database).transaction() as records:
        await records.organizations.lock(mine.organization.id)
        await tenants.graduate()
        assert (await organization(tenants, mine.organization.id)).usage_tier == 1
        assert (await organization(tenants, other.organization.id)).usage_tier == 3
    await tenants.graduate()
    assert (await organization(tenants, mine.organization.id)).usage_tier == 3


async def test_it_happens_by_itself(
    database: Database, tenants: Tenants, mine: pb.CreateOrganizationResponse, clock: Clock
) -> None:
    of = mine.organization.id
    await pay(tenants, of, "p", 100)
    async with serving(TenantsStore(database), TenantsSettings(graduation_interval_s=0.01), clock=clock):
        clock.now_s += 7 * DAY_S
        async with asyncio.timeout(30):
            while (await organization(tenants, of)).usage_tier != 3:
                await asyncio.sleep(0.01)


async def test_it_goes_on_after_a_failure(
    database: Database, tenants: Tenants, mine: pb.CreateOrganizationResponse, clock: Clock
) -> None:
    of = mine.organization.id
    await pay(tenants, of, "p", 100)
    rename = "ALTER TABLE organizations RENAME COLUMN {} TO {}"
    async with database.connection() as connection:
        await connection.execute(rename.format("tier_pinned", "away").encode())
    async with serving(TenantsStore(database), TenantsSettings(graduation_interval_s=0.01), clock=clock):
        clock.now_s += 7 * DAY_S
        await asyncio.sleep(0.05)
        async with database.connection() as connection:
            await connection.execute(rename.format("away", "tier_pinned").encode())
        async with asyncio.timeout(30):
            while (await organization(tenants, of)).usage_tier != 3:
                await asyncio.sleep(0.01)


async def test_what_a_principal_says_is_told_when_the_tier_moves_and_only_then(
    database: Database, tenants: Tenants, mine: pb.CreateOrganizationResponse
) -> None:
    of = mine.organization.id
    told = database.listen("principals")
    try:
        assert await anext(told) is None
        await pay(tenants, of, "p1", 4)
        await pay(tenants, of, "p2", 1)
        await tenants.set_limits(pb.SetLimitsRequest(organization_id=of))
        await tenants.archive_project(pb.ArchiveProjectRequest(organization_id=of, project_id=mine.project.id))
        async with asyncio.timeout(30):
            assert [await anext(told), await anext(told)] == [f"organization:{of}", f"project:{mine.project.id}"]
    finally:
        await told.aclose()
