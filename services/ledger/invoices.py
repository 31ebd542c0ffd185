"""Issues invoices of months that are over, and shows them and drafts of what is not invoiced yet.

Kept true: an invoice is issued once and never changes; what reaches the ledger after its month's invoice is on the
next one.
"""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from modelplane.ledger.v1 import ledger_pb2 as pb
from services import asked, telemetry
from services.faults import NotFound
from services.identifiers import new_id
from services.ledger import lookups, pdf
from services.ledger.settings import LedgerSettings
from services.ledger.store import LedgerStore, Records
from services.ledger.store.records import Organization

log = telemetry.logger(__name__)


class Invoices:
    """The contract's part about invoices. `clock` gives seconds of the epoch."""

    def __init__(self, store: LedgerStore, settings: LedgerSettings, clock: Callable[[], float]) -> None:
        self._store = store
        self._grace = timedelta(seconds=settings.invoice_grace_s)
        self._clock = clock

    async def list_invoices(self, request: pb.ListInvoicesRequest, /) -> pb.ListInvoicesResponse:
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            draft = await _made(records, organization, self._now().date().replace(day=1))
            issued = await records.invoices.all(organization.id)
        draft.ClearField("lines")
        return pb.ListInvoicesResponse(invoices=[draft, *issued])

    async def get_invoice(self, request: pb.GetInvoiceRequest, /) -> pb.GetInvoiceResponse:
        if asked.has_nul(request.organization_id, request.invoice_id):
            raise _none(request.invoice_id)
        month = _month(request.invoice_id)
        async with self._store.transaction() as records:
            organization = await records.organization(request.organization_id)
            if organization is None:
                raise _none(request.invoice_id)
            invoice = await records.invoices.get(organization.id, request.invoice_id, month)
            if invoice is None and month is not None and month <= self._now().date():
                invoice = await _made(records, organization, month)
                if not invoice.lines and next_month(month) <= self._now().date():
                    invoice = None
        if invoice is None:
            raise _none(request.invoice_id)
        document = await asyncio.to_thread(pdf.render, invoice) if request.pdf else b""
        return pb.GetInvoiceResponse(invoice=invoice, pdf=document)

    async def issue(self) -> None:
        """Issues what is due. Any number of processes may. Fault: database_unavailable."""
        until = (self._now() - self._grace).date().replace(day=1)
        last = (until - timedelta(days=1)).replace(day=1)
        async with self._store.transaction() as records:
            due = await records.invoices.due(last, until)
        for organization_id, month in due:
            async with self._store.transaction() as records:
                await records.lock(organization_id)
                invoice = await _made(records, await lookups.organization(records, organization_id), month)
                invoice.id = new_id("inv_")
                if invoice.lines and await records.invoices.add(invoice, month):
                    log.info(
                        "invoice issued",
                        organization_id=organization_id,
                        invoice_id=invoice.id,
                        month=invoice.month,
                        nanodollars=invoice.total_nanodollars,
                    )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


async def _made(records: Records, organization: Organization, month: date) -> pb.Invoice:
    """What the month's invoice would be now; its id is the month."""
    until = next_month(month)
    lines = await records.invoices.lines(organization.id, until)
    total = sum(line.nanodollars for line in lines)
    owed = await records.invoices.owed(organization.id, until)
    return pb.Invoice(
        id=f"{month:%Y-%m}",
        organization_id=organization.id,
        organization_name=organization.name,
        month=f"{month:%Y-%m}",
        lines=lines,
        total_nanodollars=total,
        # Those that are drawn first cover what was used first, so that what is owed is the latest usage.
        credits_nanodollars=max(0, total - owed),
    )


def next_month(month: date) -> date:
    """The first day of the month after."""
    return (month.replace(day=1) + timedelta(days=31)).replace(day=1)


def _month(text: str) -> date | None:
    """The first day of a month such as 2026-11; None for what is none."""
    if not re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", text, re.ASCII):
        return None
    return date(int(text[:4]), int(text[5:]), 1)


def _none(invoice_id: str) -> NotFound:
    return NotFound("invoice_not_found", f"No such invoice: '{invoice_id}'.", param="invoice_id")
