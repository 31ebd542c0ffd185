"""LedgerService, over both wirings: every call, and ids that name nothing."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.ledger.v1 import ledger_pb2 as pb
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.usage.v1.usage_pb2 import Attribution
from services.faults import Fault, InvalidRequest, NotFound
from services.ledger.service import Ledger
from services.ledger.settings import LedgerSettings
from services.storage import Database
from services.tenants.service import serving
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from tests.contract import tenancy
from tests.contract.conftest import Wire
from tests.services.ledger import written

ACTOR = Actor(key_id="key_1", user_agent="tests")
OF: Any = {"organization_id": "org-1"}
# Ids that name nothing: unknown, empty, not possible in the database, and clever.
NOBODY = ("none", "", "a\0", "'; --")


@pytest.fixture
async def ledger(database: Database, wire: Wire) -> AsyncIterator[LedgerService]:
    await tenancy.write(database)
    async with serving(TenantsStore(database), TenantsSettings()) as tenants:
        yield await wire(LedgerService, Ledger(database, tenants, LedgerSettings()))


async def test_every_call(ledger: LedgerService, database: Database) -> None:
    rates = json.dumps({"input": "1"}).encode()
    price = (await ledger.set_price(pb.SetPriceRequest(model="m", rates_json=rates, actor=ACTOR))).price
    found = await ledger.list_prices(pb.ListPricesRequest(at=price.effective_at))
    assert list(found.prices) == [price]

    await written.add_prices(database, 0, {"plain": {"input": "1"}})
    who = Attribution(organization_id="org-1", project_id="proj_1", key_id="key_1")
    used: dict[str, Any] = {"model": "plain", "service_tier": "default", "batch": False, "tools": None}
    tokens: dict[str, Any] = {"input_tokens": 3, "cached_input_tokens": 0, "output_tokens": 0}
    await written.add_usage(database, [written.usage(1, request_id="req_1", attribution=who, **used, **tokens)])
    refunded = await ledger.refund_usage(pb.RefundUsageRequest(**OF, request_id="req_1", actor=ACTOR))
    assert refunded.nanodollars == 3000

    granted = await ledger.grant_credits(pb.GrantCreditsRequest(**OF, grant_id="g", nanodollars=5, actor=ACTOR))
    assert (granted.credit.id, granted.credit.remaining_nanodollars) == ("g", 5)
    paid = await ledger.record_payment(
        pb.RecordPaymentRequest(**OF, payment_id="p", nanodollars=7 * 10**9, actor=ACTOR)
    )
    assert (paid.booked, paid.usage_tier, paid.paid_nanodollars) == (True, 1, 7 * 10**9)
    await ledger.set_terms(pb.SetTermsRequest(**OF, prepaid=True, actor=ACTOR))
    balance = await ledger.get_balance(pb.GetBalanceRequest(**OF))
    assert (balance.prepaid, balance.credits_nanodollars, balance.available_nanodollars) == (
        True,
        5 + 7 * 10**9,
        5 + 7 * 10**9,
    )
    postings = await ledger.list_postings(pb.ListPostingsRequest(**OF, usage=True, limit=10))
    assert len(postings.postings) == 5

    [draft] = (await ledger.list_invoices(pb.ListInvoicesRequest(**OF))).invoices
    invoice = await ledger.get_invoice(pb.GetInvoiceRequest(**OF, invoice_id=draft.id, pdf=True))
    assert invoice.pdf.startswith(b"%PDF-") and invoice.invoice.id == draft.id
    answers = [answer async for answer in ledger.audit(pb.AuditRequest())]
    assert answers[-1].done and not answers[-1].findings_total


@pytest.mark.parametrize("nobody", NOBODY)
@pytest.mark.parametrize(
    "call",
    [
        lambda ledger, of: ledger.get_balance(pb.GetBalanceRequest(organization_id=of)),
        lambda ledger, of: ledger.set_terms(pb.SetTermsRequest(organization_id=of, prepaid=True)),
        lambda ledger, of: ledger.grant_credits(pb.GrantCreditsRequest(organization_id=of, nanodollars=1)),
        lambda ledger, of: ledger.record_payment(
            pb.RecordPaymentRequest(organization_id=of, payment_id="p", nanodollars=1)
        ),
        lambda ledger, of: ledger.record_payment(
            pb.RecordPaymentRequest(organization_id=of, payment_id="p", nanodollars=-1)
        ),
        lambda ledger, of: ledger.refund_usage(pb.RefundUsageRequest(organization_id=of, request_id="req_1")),
        lambda ledger, of: ledger.refund_usage(pb.RefundUsageRequest(**OF, request_id=of)),
        lambda ledger, of: ledger.list_postings(pb.ListPostingsRequest(organization_id=of, limit=1)),
        lambda ledger, of: ledger.list_invoices(pb.ListInvoicesRequest(organization_id=of)),
        lambda ledger, of: ledger.get_invoice(pb.GetInvoiceRequest(organization_id=of, invoice_id="2026-10")),
        lambda ledger, of: ledger.get_invoice(pb.GetInvoiceRequest(**OF, invoice_id=of)),
    ],
)
async def test_what_there_is_not(
    ledger: LedgerService, call: Callable[[LedgerService, str], Awaitable[object]], nobody: str
) -> None:
    with pytest.raises(NotFound):
        await call(ledger, nobody)


@pytest.mark.parametrize(
    "call",
    [
        lambda ledger, text: ledger.set_price(pb.SetPriceRequest(model=text, rates_json=b'{"free": true}')),
        lambda ledger, text: ledger.grant_credits(
            pb.GrantCreditsRequest(**OF, grant_id="g" + text, nanodollars=1, expires_at=1 << 62)
        ),
        lambda ledger, text: ledger.grant_credits(
            pb.GrantCreditsRequest(**OF, nanodollars=1, description=text or "\x1b")
        ),
        lambda ledger, text: ledger.record_payment(
            pb.RecordPaymentRequest(**OF, payment_id=text, nanodollars=1, expires_at=-5)
        ),
        lambda ledger, text: ledger.refund_usage(
            pb.RefundUsageRequest(**OF, request_id="req_1", reason=text or "\x1b")
        ),
        lambda ledger, text: ledger.list_postings(pb.ListPostingsRequest(**OF, limit=1, page=text or "\0")),
        lambda ledger, text: ledger.list_postings(pb.ListPostingsRequest(**OF, limit=0, page=text)),
    ],
)
@pytest.mark.parametrize("text", ["", "a\0", "x" * 300])
async def test_what_cannot_be_kept(
    ledger: LedgerService, call: Callable[[LedgerService, str], Awaitable[object]], text: str
) -> None:
    with pytest.raises(Fault) as refused:
        await call(ledger, text)
    assert isinstance(refused.value, InvalidRequest)


async def test_no_price_of_nobody_and_no_posting_of_another_transaction(ledger: LedgerService) -> None:
    for nobody in NOBODY[2:]:
        assert not (await ledger.list_prices(pb.ListPricesRequest(model=nobody, history=True))).prices
    found = await ledger.list_postings(pb.ListPostingsRequest(**OF, transaction_id="'; --", limit=1))
    assert not found.postings
