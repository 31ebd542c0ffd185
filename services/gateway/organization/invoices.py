"""/v1/organization/invoices: what an organisation is asked to pay for, by month, as JSON or as PDF.

Modelplane's own: OpenAI's API has no invoices. Amounts are decimals of dollars in strings, which are exact.
"""

from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import GetInvoiceRequest, Invoice, ListInvoicesRequest
from services.gateway.calls import Call
from services.gateway.organization.credits import CURRENCY
from services.gateway.requests.values import one_of
from services.pricing.rates import dollars

PDF: Final = "application/pdf"
_format = one_of("json", "pdf")


class Invoices:
    """The endpoints."""

    def __init__(self, ledger: LedgerService) -> None:
        self._ledger = ledger

    async def list_all(self, call: Call) -> None:
        """The draft of this month, then the issued ones, the newest first; without their lines."""
        found = await self._ledger.list_invoices(ListInvoicesRequest(organization_id=call.caller.organization_id))
        shown = {"object": "list", "data": [_shown(invoice) for invoice in found.invoices], "has_more": False}
        await call.respond(200, msgspec.json.encode(shown))

    async def get(self, call: Call) -> None:
        """By its id, or by a month such as 2026-11. A PDF when the client accepts one or `format=pdf` asks for it."""
        as_pdf = _wants_pdf(call)
        found = await self._ledger.get_invoice(
            GetInvoiceRequest(
                organization_id=call.caller.organization_id,
                invoice_id=call.parameters["invoice_id"],
                pdf=as_pdf,
            )
        )
        invoice = found.invoice
        if as_pdf:
            name = f'attachment; filename="invoice-{invoice.month}.pdf"'.encode()
            headers = [(b"content-disposition", name)]
            await call.respond(200, found.pdf, headers, content_type=(b"content-type", PDF.encode()))
            return
        lines = [
            {
                "project_id": line.project_id or None,
                "model": line.model,
                "line_item": line.line,
                "quantity": line.quantity,
                "amount": dollars(line.nanodollars),
            }
            for line in invoice.lines
        ]
        await call.respond(200, msgspec.json.encode({**_shown(invoice), "lines": lines}))


def _wants_pdf(call: Call) -> bool:
    """Raises InvalidRequest for another format."""
    if given := parse_qs(call.query.decode("latin-1"), keep_blank_values=True).get("format"):
        return _format("format", given[-1]) == "pdf"
    return PDF in call.header(b"accept")


def _shown(invoice: Invoice) -> dict[str, Any]:
    return {
        "object": "organization.invoice",
        "id": invoice.id,
        "month": invoice.month,
        "status": "issued" if invoice.issued_at else "draft",
        "issued_at": invoice.issued_at or None,
        "organization_name": invoice.organization_name,
        "currency": CURRENCY,
        "total": dollars(invoice.total_nanodollars),
        "paid_by_credits": dollars(invoice.credits_nanodollars),
        "due": dollars(invoice.total_nanodollars - invoice.credits_nanodollars),
    }
