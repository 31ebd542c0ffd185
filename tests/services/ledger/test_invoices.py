"""Invoices: of months that are over, once each, of everything that no invoice had; the sum is what usage cost."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from modelplane.ledger.v1 import ledger_pb2 as pb
from modelplane.usage.v1.usage_pb2 import Attribution
from services.faults import NotFound
from services.ledger.service import Ledger
from services.storage import Database
from tests.audited import assert_clean
from tests.services.ledger import written
from tests.services.ledger.conftest import ACTOR, DOLLAR, Clock, balance, grant, pay


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.fixture
async def priced(database: Database) -> None:
    prices: dict[str, dict[str, Any]] = {
        "plain": {"input": "1"},
        "other": {"input": "2", "output": "3", "multipliers": {"batch": "0.5"}},
    }
    await written.add_prices(database, 0, prices)


async def use(database: Database, organization_id: str, request_id: str, when: str, **changes: Any) -> None:
    """A request of a million input tokens; a dollar unless the changes say otherwise."""
    values: dict[str, Any] = {
        "request_id": request_id,
        "attribution": Attribution(organization_id=organization_id, project_id="proj_1", key_id="key_1"),
        "model": "plain",
        "service_tier": "default",
        "batch": False,
        "tools": None,
        "input_tokens": 10**6,
        "cached_input_tokens": 0,
        "output_tokens": 0,
        "started_at_ms": int(at(when) * 1000),
        "finished_at_ms": int(at(when) * 1000),
    }
    await written.add_usage(database, [written.usage(1, **{**values, **changes})])


async def listed(service: Ledger, organization_id: str) -> list[tuple[str, bool, int, int]]:
    """Month, whether it is issued, total and credits in dollars."""
    answer = await service.list_invoices(pb.ListInvoicesRequest(organization_id=organization_id))
    assert not any(invoice.lines for invoice in answer.invoices)
    return [
        (
            invoice.month,
            bool(invoice.issued_at),
            invoice.total_nanodollars // DOLLAR,
            invoice.credits_nanodollars // DOLLAR,
        )
        for invoice in answer.invoices
    ]


async def invoice_of(
    service: Ledger, organization_id: str, invoice_id: str, pdf: bool = False
) -> pb.GetInvoiceResponse:
    return await service.get_invoice(
        pb.GetInvoiceRequest(organization_id=organization_id, invoice_id=invoice_id, pdf=pdf)
    )


def lines(invoice: pb.Invoice) -> list[tuple[str, str, str, int, int]]:
    return [(line.project_id, line.model, line.line, line.quantity, line.nanodollars) for line in invoice.lines]


async def test_an_invoice_has_a_line_for_each_project_model_and_item(
    service: Ledger, database: Database, database_url: str, mine: str, other: str, clock: Clock, priced: None
) -> None:
    for number, key in enumerate(("key_1", "key_2")):
        who = Attribution(organization_id=mine, project_id="proj_1", key_id=key)
        await use(database, mine, f"req_{number}", "2026-10-31T23:59:59.999", attribution=who)
    who = Attribution(organization_id=mine, project_id="proj_2", key_id="key_3")
    batch = {"model": "other", "batch": True, "output_tokens": 2 * 10**6}
    await use(database, mine, "req_2", "2026-10-01T00:00", attribution=who, **batch)
    await use(database, mine, "req_3", "2026-11-01T00:00")
    await use(database, other, "req_4", "2026-10-10T00:00")
    clock.now_s = at("2026-11-01T01:00:01")
    await asyncio.gather(*(service.issue() for _ in range(3)))
    assert await listed(service, mine) == [("2026-11", False, 1, 0), ("2026-10", True, 6, 0)]
    [_, issued] = (await service.list_invoices(pb.ListInvoicesRequest(organization_id=mine))).invoices
    invoice = (await invoice_of(service, mine, issued.id)).invoice
    assert lines(invoice) == [
        ("proj_1", "plain", "input", 2 * 10**6, 2 * DOLLAR),
        ("proj_2", "other", "discount", 0, -4 * DOLLAR),
        ("proj_2", "other", "input", 10**6, 2 * DOLLAR),
        ("proj_2", "other", "output", 2 * 10**6, 6 * DOLLAR),
    ]
    assert sum(line.nanodollars for line in invoice.lines) == invoice.total_nanodollars
    assert (invoice.organization_name, invoice.organization_id) == ("Mine", mine)
    assert (await invoice_of(service, mine, "2026-10")).invoice == invoice
    with pytest.raises(NotFound):
        await invoice_of(service, other, issued.id)
    await assert_clean(database_url)


async def test_invoices_wait_for_the_grace_period(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    await use(database, mine, "req_1", "2026-10-10T00:00")
    clock.now_s = at("2026-11-01T00:59:59")
    await service.issue()
    assert await listed(service, mine) == [("2026-11", False, 1, 0)]
    assert (await invoice_of(service, mine, "2026-10")).invoice.issued_at == 0
    clock.now_s += 2
    await service.issue()
    assert await listed(service, mine) == [("2026-11", False, 0, 0), ("2026-10", True, 1, 0)]


async def test_what_comes_late_is_on_the_next_invoice(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    """Also when nothing else is on it."""
    await use(database, mine, "req_1", "2026-09-10T00:00")
    clock.now_s = at("2026-10-02T00:00")
    await service.issue()
    await use(database, mine, "req_2", "2026-09-30T23:59")
    await use(database, mine, "req_3", "2026-08-30T23:59")
    await service.issue()
    assert await listed(service, mine) == [("2026-10", False, 2, 0), ("2026-09", True, 1, 0)]
    clock.now_s = at("2026-11-02T00:00")
    await service.issue()
    await service.issue()
    assert (await listed(service, mine))[:2] == [("2026-11", False, 0, 0), ("2026-10", True, 2, 0)]


async def test_a_ledger_that_was_away_for_months_issues_each(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    for month in ("05", "06", "08"):
        await use(database, mine, f"req_{month}", f"2026-{month}-15T12:00")
    clock.now_s = at("2026-11-02T00:00")
    await service.issue()
    assert await listed(service, mine) == [
        ("2026-11", False, 0, 0),
        ("2026-08", True, 1, 0),
        ("2026-06", True, 1, 0),
        ("2026-05", True, 1, 0),
    ]


async def test_credits_cover_the_oldest_usage_first(
    service: Ledger, database: Database, database_url: str, mine: str, clock: Clock, priced: None
) -> None:
    for number in range(4):
        await use(database, mine, f"req_{number}", "2026-09-10T00:00")
    await pay(service, mine, "p1", 3)
    clock.now_s = at("2026-10-02T00:00")
    await service.issue()
    for number in range(4, 8):
        await use(database, mine, f"req_{number}", "2026-10-10T00:00")
    # Pays what was left of September, and a part of October.
    await grant(service, mine, "g", 3)
    await use(database, mine, "req_8", "2026-11-01T00:10")
    clock.now_s = at("2026-11-02T00:00")
    await service.issue()
    assert await listed(service, mine) == [("2026-11", False, 1, 0), ("2026-10", True, 4, 2), ("2026-09", True, 4, 3)]
    assert (await balance(service, mine)).owed_nanodollars == 3 * DOLLAR
    await assert_clean(database_url)


async def test_a_refund_lowers_the_invoice_of_its_month(
    service: Ledger, database: Database, database_url: str, mine: str, clock: Clock, priced: None
) -> None:
    for number in range(3):
        await use(database, mine, f"req_{number}", "2026-10-10T00:00")
    clock.now_s = at("2026-10-20T00:00")
    await service.refund_usage(pb.RefundUsageRequest(organization_id=mine, request_id="req_0", actor=ACTOR))
    clock.now_s = at("2026-11-02T00:00")
    await service.issue()
    [_, issued] = await listed(service, mine)
    assert issued == ("2026-10", True, 2, 0)
    invoice = (await invoice_of(service, mine, "2026-10")).invoice
    assert ("proj_1", "plain", "refund", 0, -DOLLAR) in lines(invoice)
    assert (await balance(service, mine)).owed_nanodollars == 2 * DOLLAR
    await assert_clean(database_url)


async def test_invoices_add_up_to_what_was_used(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None
) -> None:
    """Whatever came when, and however often invoices were issued."""
    for month in range(3, 11):
        await use(database, mine, f"req_{month}", f"2026-{month:02}-28T12:00")
        if month > 4:
            await use(database, mine, f"req_late_{month}", f"2026-{month - 2:02}-28T12:00", model="other")
        clock.now_s = at(f"2026-{month + 1:02}-01T02:00")
        await service.issue()
    invoices = await listed(service, mine)
    assert sum(invoice[2] for invoice in invoices) == 8 + 6 * 2
    assert len(invoices) == 9


@pytest.mark.parametrize("invoice_id", ["", "inv_none", "2026-13", "2026-12", "2025-01", "9999-01", "2026-10\0", "x'"])
async def test_invoices_that_there_are_not(
    service: Ledger, database: Database, mine: str, clock: Clock, priced: None, invoice_id: str
) -> None:
    await use(database, mine, "req_1", "2026-10-10T00:00")
    clock.now_s = at("2026-11-02T00:00")
    for of in (mine, "org-none"):
        with pytest.raises(NotFound):
            await invoice_of(service, of, invoice_id)


async def test_the_draft_of_the_current_month_is_there_though_it_is_empty(
    service: Ledger, mine: str, clock: Clock
) -> None:
    clock.now_s = at("2026-12-31T23:59:59")
    [draft] = (await service.list_invoices(pb.ListInvoicesRequest(organization_id=mine))).invoices
    found = await invoice_of(service, mine, draft.id, pdf=True)
    assert (found.invoice.month, found.invoice.total_nanodollars) == ("2026-12", 0)
    assert found.pdf.startswith(b"%PDF-")
