"""Credits, payments and refunds: what is told twice or at once counts once, and the audit stays clean."""

import asyncio
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.ledger.v1 import ledger_pb2 as pb
from modelplane.tenants.v1 import tenants_pb2
from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.usage.v1.usage_pb2 import Attribution
from services.faults import Fault, InvalidRequest, NotFound, Unavailable
from services.ledger.payments import Payments
from services.ledger.service import Ledger
from services.ledger.store import LedgerStore
from services.storage import Database
from services.tenants.service import Tenants
from tests.audited import assert_clean
from tests.services.ledger import written
from tests.services.ledger.conftest import ACTOR, DOLLAR, Clock, balance, grant, pay, postings

HOUR_S = 3600


@pytest.fixture(autouse=True)
async def audited(database_url: str) -> AsyncIterator[None]:
    """Whatever a test did, the ledger adds up."""
    yield
    await assert_clean(database_url)


async def use(database: Database, organization_id: str, request_id: str, dollars: int, at_ms: int = 0) -> None:
    """A request that costs so much: a million tokens a dollar."""
    await written.add_usage(
        database,
        [
            written.usage(
                1,
                request_id=request_id,
                attribution=Attribution(organization_id=organization_id, project_id="proj_1", key_id="key_1"),
                model="plain",
                service_tier="default",
                batch=False,
                tools=None,
                input_tokens=dollars * 10**6,
                cached_input_tokens=0,
                output_tokens=0,
                finished_at_ms=at_ms or int(time.time() * 1000),
                started_at_ms=at_ms or int(time.time() * 1000),
            )
        ],
    )


@pytest.fixture
async def priced(database: Database) -> None:
    await written.add_prices(database, 0, {"plain": {"input": "1"}})


async def test_a_payment_is_booked_once_and_raises_the_tier(
    service: Ledger, tenants: Tenants, mine: str, other: str
) -> None:
    answers = await asyncio.gather(*(pay(service, mine, "wire-1", 5) for _ in range(10)))
    assert sorted(answer.booked for answer in answers) == [False] * 9 + [True]
    assert {(answer.usage_tier, answer.paid_nanodollars) for answer in answers} == {(1, 5 * DOLLAR)}
    # A payment id is the organisation's own.
    assert (await pay(service, other, "wire-1", 50)).booked
    assert await postings(service, mine) == [("wire-1", "payment", "cash", "credits", 5 * DOLLAR)]
    found = await balance(service, mine)
    assert (found.credits_nanodollars, found.owed_nanodollars, found.prepaid) == (5 * DOLLAR, 0, False)
    assert not found.HasField("available_nanodollars")
    assert [(credit.id, credit.kind) for credit in found.credits] == [("wire-1", "payment")]


async def test_the_same_payment_with_another_amount_is_refused(service: Ledger, mine: str) -> None:
    await pay(service, mine, "wire-1", 5)
    for dollars in (6, -5):
        with pytest.raises(InvalidRequest, match="another amount"):
            await pay(service, mine, "wire-1", dollars)
    await grant(service, mine, "gift", 1)
    with pytest.raises(InvalidRequest):
        await pay(service, mine, "gift", 1)
    assert (await balance(service, mine)).credits_nanodollars == 6 * DOLLAR


@pytest.mark.parametrize(
    ("organization", "payment_id", "nanodollars", "expires_at"),
    [
        ("org-none", "p", 1, 0),
        ("org\0", "p", 1, 0),
        (None, "", 1, 0),
        (None, "p\0", 1, 0),
        (None, "p", 0, 0),
        (None, "p", 2**62, 0),
        (None, "p", 1, 1),
    ],
)
async def test_payments_that_are_none(
    service: Ledger, mine: str, organization: str | None, payment_id: str, nanodollars: int, expires_at: int
) -> None:
    of = mine if organization is None else organization
    request = pb.RecordPaymentRequest(
        organization_id=of, payment_id=payment_id, nanodollars=nanodollars, expires_at=expires_at
    )
    with pytest.raises((InvalidRequest, NotFound)):
        await service.record_payment(request)
    assert await pay(service, mine, "sound", 1)
    assert (await balance(service, mine)).credits_nanodollars == DOLLAR


class Dying:
    """A tenants service whose answer does not arrive, once: the caller was killed, or the network was cut."""

    def __init__(self, tenants: TenantsService) -> None:
        self._tenants = tenants
        self._dies = True

    async def record_payment(self, request: tenants_pb2.RecordPaymentRequest, /) -> tenants_pb2.RecordPaymentResponse:
        answer = await self._tenants.record_payment(request)
        if self._dies:
            self._dies = False
            raise Unavailable("service_unavailable", "gone")
        return answer


@pytest.mark.parametrize("dollars", [5, -2])
async def test_a_call_that_was_cut_short_is_completed_by_its_repetition(
    service: Ledger, database: Database, tenants: Tenants, mine: str, clock: Clock, dollars: int
) -> None:
    await pay(service, mine, "first", 10)
    payments = Payments(LedgerStore(database), Dying(tenants), clock)  # type: ignore[arg-type]
    request = pb.RecordPaymentRequest(organization_id=mine, payment_id="p", nanodollars=dollars * DOLLAR)
    with pytest.raises(Fault):
        await payments.record_payment(request)
    for _ in range(2):
        answer = await payments.record_payment(request)
        assert answer.paid_nanodollars == (10 + dollars) * DOLLAR
    assert (await balance(service, mine)).credits_nanodollars == (10 + dollars) * DOLLAR


async def test_what_was_paid_and_not_used_can_be_paid_back(
    service: Ledger, database: Database, mine: str, priced: None
) -> None:
    await grant(service, mine, "gift", 100)
    await pay(service, mine, "p1", 5)
    await pay(service, mine, "p2", 5)
    assert (await pay(service, mine, "r1", -7)).paid_nanodollars == 3 * DOLLAR
    assert not (await pay(service, mine, "r1", -7)).booked
    with pytest.raises(InvalidRequest, match="another amount"):
        await pay(service, mine, "r1", -1)
    # Gifts are not paid out.
    with pytest.raises(InvalidRequest, match="only 3 dollars"):
        await pay(service, mine, "r2", -4)
    assert (await balance(service, mine)).credits_nanodollars == 103 * DOLLAR
    await asyncio.gather(*(pay(service, mine, f"r{number}", -1) for number in range(3, 6)))
    assert (await balance(service, mine)).credits_nanodollars == 100 * DOLLAR


async def test_credits_cover_what_is_owed_at_once_and_those_that_expire_first_before(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    await use(database, mine, "req_1", 10)
    assert (await balance(service, mine)).owed_nanodollars == 10 * DOLLAR
    await pay(service, mine, "p", 4)
    found = await balance(service, mine)
    assert (found.owed_nanodollars, found.credits_nanodollars) == (6 * DOLLAR, 0)
    await grant(service, mine, "g", 7)
    assert (await balance(service, mine)).credits_nanodollars == DOLLAR
    await grant(service, mine, "soon", 3, int(clock.now_s) + HOUR_S)
    await use(database, mine, "req_2", 2)
    found = await balance(service, mine)
    assert [(credit.id, credit.remaining_nanodollars) for credit in found.credits] == [("soon", DOLLAR), ("g", DOLLAR)]


async def test_a_grant_counts_once(service: Ledger, mine: str) -> None:
    await asyncio.gather(*(grant(service, mine, "gift", 5) for _ in range(5)))
    with pytest.raises(InvalidRequest):
        await grant(service, mine, "gift", 6)
    first, second = await grant(service, mine, "", 1), await grant(service, mine, "", 1)
    assert first.credit.id != second.credit.id
    assert (await balance(service, mine)).credits_nanodollars == 7 * DOLLAR


@pytest.mark.parametrize(("dollars", "late_s"), [(0, HOUR_S), (-1, HOUR_S), (2 * 10**9, HOUR_S), (1, 0), (1, -1)])
async def test_grants_that_are_none(service: Ledger, mine: str, clock: Clock, dollars: int, late_s: int) -> None:
    with pytest.raises(InvalidRequest):
        await grant(service, mine, "", dollars, int(clock.now_s) + late_s)


async def test_credits_expire_once(service: Ledger, database: Database, mine: str, clock: Clock, priced: None) -> None:
    clock.now_s -= 2 * HOUR_S
    await grant(service, mine, "old", 5, int(clock.now_s) + HOUR_S)
    await grant(service, mine, "new", 1)
    # By the database's clock it is over; nothing draws it any more, booked or not.
    await use(database, mine, "req_1", 1)
    assert (await balance(service, mine)).credits_nanodollars == 0
    await asyncio.gather(*(service.expire() for _ in range(3)))
    expired = [row for row in await postings(service, mine) if row[1] == "expiry"]
    assert [row[2:] for row in expired] == [("credits", "expired", 5 * DOLLAR)]
    await service.expire()
    assert len(await postings(service, mine)) == 4


async def test_prepaid_credits_and_the_spend_limit_bound_what_is_available(
    service: Ledger, tenants: Tenants, database: Database, mine: str, priced: None
) -> None:
    await service.set_terms(pb.SetTermsRequest(organization_id=mine, prepaid=True, actor=ACTOR))
    assert (await balance(service, mine)).available_nanodollars == 0
    await pay(service, mine, "p", 10)
    await use(database, mine, "req_1", 4)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO spend_leases VALUES (%s, '', 'me', 1000000000, now() + interval '1 minute'), "
            "(%s, '', 'dead', 1000000000, now() - interval '1 minute')",
            (mine, mine),
        )
    found = await balance(service, mine)
    assert found.prepaid and found.reserved_nanodollars == DOLLAR and found.month_nanodollars == 4 * DOLLAR
    assert found.available_nanodollars == 5 * DOLLAR
    limit = tenants_pb2.SpendLimit(threshold_cents=600)
    await tenants.set_spend_limit(tenants_pb2.SetSpendLimitRequest(organization_id=mine, spend_limit=limit))
    assert (await balance(service, mine)).available_nanodollars == DOLLAR


async def test_usage_is_refunded_once(service: Ledger, database: Database, mine: str, other: str, priced: None) -> None:
    await use(database, mine, "req_1", 3)
    await use(database, mine, "req_2", 2)
    request = pb.RefundUsageRequest(organization_id=mine, request_id="req_1", reason="it was wrong", actor=ACTOR)
    answers = await asyncio.gather(*(service.refund_usage(request) for _ in range(5)))
    assert {answer.nanodollars for answer in answers} == {3 * DOLLAR}
    found = await balance(service, mine)
    # What is given back covers what is owed, and the month's sum is what was kept.
    assert (found.owed_nanodollars, found.month_nanodollars, found.credits_nanodollars) == (2 * DOLLAR, 2 * DOLLAR, 0)
    booked = await postings(service, mine)
    assert ("req_1", "refund", "refunds", "credits", 3 * DOLLAR) in booked
    assert len(booked) == 2
    assert len(await postings(service, mine, usage=True)) == 4
    for strange in (
        pb.RefundUsageRequest(organization_id=other, request_id="req_2"),
        pb.RefundUsageRequest(organization_id=mine, request_id="req_3"),
        pb.RefundUsageRequest(organization_id=mine, request_id="req\0"),
    ):
        with pytest.raises(NotFound):
            await service.refund_usage(strange)


async def test_postings_are_listed_by_pages(
    service: Ledger, database: Database, mine: str, other: str, priced: None
) -> None:
    at_ms = int(time.time() * 1000)
    for number in range(7):
        await use(database, mine, f"req_{number}", 1, at_ms - number // 3)
    await use(database, other, "req_of_the_other", 1)
    await grant(service, mine, "g", 2)
    found = await postings(service, mine, usage=True)
    assert len(found) == 7 + 2
    assert [row[0] for row in found if row[1] == "input"] == [f"req_{number}" for number in (2, 1, 0, 5, 4, 3, 6)]
    assert await postings(service, mine, transaction_id="g") == [("g", "grant", "grants", "credits", 2 * DOLLAR)]
    assert [row[0] for row in await postings(service, mine, transaction_id="req_3")] == ["req_3"]
    assert await postings(service, mine, transaction_id="req_of_the_other") == []
    for page in ("!", "e30=", "WzEsMl0=", "WzEsIgAiLCIiXQ=="):
        with pytest.raises(InvalidRequest):
            await service.list_postings(pb.ListPostingsRequest(organization_id=mine, limit=1, page=page))


async def test_every_change_is_in_the_audit_log(
    service: Ledger, tenants: Tenants, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    clock.now_s -= 2 * HOUR_S
    await service.set_terms(pb.SetTermsRequest(organization_id=mine, prepaid=True, actor=ACTOR))
    await grant(service, mine, "g", 2, int(clock.now_s) + HOUR_S)
    await service.expire()
    await pay(service, mine, "p", 4)
    await use(database, mine, "req_1", 1)
    await service.refund_usage(pb.RefundUsageRequest(organization_id=mine, request_id="req_1", actor=ACTOR))
    page = Page(limit=100, ascending=True)
    events = await tenants.list_audit_events(tenants_pb2.ListAuditEventsRequest(organization_id=mine, page=page))
    kinds = [event.type for event in events.events]
    for kind in ("terms.updated", "credits.granted", "credits.expired", "payment.recorded", "usage.refunded"):
        assert kinds.count(f"organization.{kind}") == 1, kind


async def test_the_ledger_cannot_be_changed(service: Ledger, database_url: str, mine: str) -> None:
    await pay(service, mine, "p", 4)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.IntegrityError):
        connection.execute("UPDATE postings SET nanodollars = 1")


async def test_an_unknown_organization(service: Ledger) -> None:
    for call in (
        balance(service, "org-none"),
        grant(service, "org-none", "g", 1),
        service.set_terms(pb.SetTermsRequest(organization_id="org-none", prepaid=True)),
        postings(service, "org-none"),
    ):
        with pytest.raises(NotFound):
            await call


async def test_everything_at_once_adds_up(
    service: Ledger, database: Database, mine: str, other: str, priced: None, clock: Clock
) -> None:
    """Drains, payments, grants, both kinds of refunds, of two organisations: nothing is lost, nobody waits for ever."""

    async def paid_back(number: int) -> int:
        try:
            await pay(service, mine, f"back-{number}", -1)
        except InvalidRequest:
            return 1
        return 0

    for of in (mine, other):
        await pay(service, of, "first", 5)
        await use(database, of, f"req_first_{of}", 1)
    refused = 0
    for start in range(0, 12, 4):
        round_ = range(start, start + 4)
        answers = await asyncio.gather(
            *(use(database, of, f"req_{of}_{number}", 1) for number in round_ for of in (mine, other)),
            *(pay(service, of, f"p-{number}", 1) for number in round_ for of in (mine, other)),
            *(grant(service, of, f"g-{number}", 1) for number in round_ for of in (mine, other)),
            *(paid_back(number) for number in round_),
            *(
                service.refund_usage(pb.RefundUsageRequest(organization_id=of, request_id=f"req_first_{of}"))
                for of in (mine, other)
            ),
        )
        refused += sum(answer for answer in answers if isinstance(answer, int))
    found = await balance(service, mine)
    # 5 + 12 + 12 came in, 13 were used, of which 1 was given back; the rest of 12 was paid back.
    assert found.credits_nanodollars - found.owed_nanodollars == (5 + 24 - 13 + 1 - (12 - refused)) * DOLLAR
    found = await balance(service, other)
    assert found.credits_nanodollars - found.owed_nanodollars == (5 + 24 - 13 + 1) * DOLLAR
    assert (found.month_nanodollars, found.owed_nanodollars) == (12 * DOLLAR, 0)
