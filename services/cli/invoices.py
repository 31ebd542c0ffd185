"""`modelplane invoices`: what organisations are asked to pay for, by month."""

import argparse
import asyncio
from pathlib import Path

from modelplane.ledger.v1.ledger_pb2 import GetInvoiceRequest, GetInvoiceResponse, Invoice, ListInvoicesRequest
from services.cli.output import Answer, Row, moment
from services.cli.platform import Noun, Platform, Subcommands
from services.pricing.rates import dollars


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane invoices` and its verbs."""
    noun = Noun(subcommands, "invoices", "what organizations are asked to pay for, by month")
    noun.verb("list", "show all invoices and the draft of this month", list_all)
    show_ = noun.verb("show", "show the lines of an invoice", show)
    pdf_ = noun.verb("pdf", "write an invoice as PDF", write_pdf)
    for parser in (show_, pdf_):
        parser.add_argument("invoice", help="its id, or a month such as 2026-11")
    pdf_.add_argument("--output", type=Path, metavar="FILE", help="default: invoice-MONTH.pdf")


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    request = ListInvoicesRequest(organization_id=await platform.organization(options))
    return [row(invoice) for invoice in (await platform.ledger.list_invoices(request)).invoices]


async def show(platform: Platform, options: argparse.Namespace) -> Answer:
    """Its lines; in JSON with what stands above and below them."""
    invoice = (await _get(platform, options, pdf=False)).invoice
    lines = [
        {
            "project": line.project_id,
            "model": line.model,
            "line": line.line,
            "quantity": line.quantity,
            "dollars": dollars(line.nanodollars),
        }
        for line in invoice.lines
    ]
    if options.json:
        return {**row(invoice), "lines": lines}
    total = {"project": "", "model": "", "line": "total", "quantity": "", "dollars": dollars(invoice.total_nanodollars)}
    covered = {**total, "line": "paid by credits", "dollars": dollars(invoice.credits_nanodollars)}
    return [*lines, total, covered]


async def write_pdf(platform: Platform, options: argparse.Namespace) -> Answer:
    found = await _get(platform, options, pdf=True)
    output: Path = options.output or Path(f"invoice-{found.invoice.month}.pdf")
    await asyncio.to_thread(output.write_bytes, found.pdf)
    return {"id": found.invoice.id, "file": str(output)}


async def _get(platform: Platform, options: argparse.Namespace, *, pdf: bool) -> GetInvoiceResponse:
    return await platform.ledger.get_invoice(
        GetInvoiceRequest(organization_id=await platform.organization(options), invoice_id=options.invoice, pdf=pdf)
    )


def row(invoice: Invoice) -> Row:
    return {
        "id": invoice.id,
        "month": invoice.month,
        "issued": moment(invoice.issued_at),
        "total_dollars": dollars(invoice.total_nanodollars),
        "paid_by_credits_dollars": dollars(invoice.credits_nanodollars),
        "due_dollars": dollars(invoice.total_nanodollars - invoice.credits_nanodollars),
    }
