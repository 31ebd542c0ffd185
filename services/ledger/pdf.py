"""An invoice as a PDF document of A4 pages. Pure: the same invoice is the same document, byte for byte."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Final

from modelplane.ledger.v1.ledger_pb2 import Invoice
from services.pricing.rates import NANO

if TYPE_CHECKING:
    from fpdf import FPDF

CENT: Final = Decimal("0.01")
# Shares of the width of a page.
WIDTHS: Final = (30, 26, 22, 16, 16)
TITLES: Final = ("Project", "Model", "Item", "Quantity", "US dollars")
FAMILY: Final = "helvetica"


def render(invoice: Invoice) -> bytes:
    """Takes some milliseconds, and a second the first time. What the built-in fonts have no letter for is a `?`."""
    from fpdf import FPDF
    from fpdf.enums import Align, XPos, YPos

    document = FPDF(format="A4")
    document.set_creation_date(datetime.fromtimestamp(invoice.issued_at, UTC))
    document.set_title(f"Invoice {_text(invoice.id)}")
    document.add_page()
    document.set_font(FAMILY, size=18)
    title = "Invoice" if invoice.issued_at else "Draft of an invoice"
    document.cell(text=title, new_x=XPos.LMARGIN, new_y=YPos.NEXT, h=12)
    document.set_font(FAMILY, size=10)
    issued = f"{datetime.fromtimestamp(invoice.issued_at, UTC):%Y-%m-%d}" if invoice.issued_at else "-"
    for name, value in (
        ("Number", invoice.id),
        ("Organization", f"{invoice.organization_name} ({invoice.organization_id})"),
        ("Month (UTC)", invoice.month),
        ("Issued", issued),
    ):
        document.cell(text=name, w=35, h=6)
        document.multi_cell(text=_text(value), w=0, h=6, align=Align.L, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    document.ln(6)
    _table(document, invoice)
    return bytes(document.output())


def dollars(nanodollars: int) -> str:
    """Exact: at least two decimals, at most nine."""
    amount = Decimal(nanodollars) / NANO
    cents = amount.quantize(CENT)
    return f"{cents:f}" if cents == amount else f"{amount.normalize():f}"


def _table(document: "FPDF", invoice: Invoice) -> None:
    from fpdf.enums import TableBordersLayout
    from fpdf.fonts import FontFace

    due = invoice.total_nanodollars - invoice.credits_nanodollars
    rounded = (Decimal(due) / NANO).quantize(CENT, ROUND_HALF_UP)
    document.set_font(FAMILY, size=8)
    with document.table(
        col_widths=WIDTHS,
        text_align=("LEFT", "LEFT", "LEFT", "RIGHT", "RIGHT"),
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        line_height=5,
    ) as table:
        table.row(TITLES)
        for line in invoice.lines:
            quantity = f"{line.quantity:,}" if line.quantity else ""
            cells = (line.project_id, line.model, line.line, quantity, dollars(line.nanodollars))
            table.row([_text(cell) for cell in cells])
        for name, amount in (
            ("Total", dollars(invoice.total_nanodollars)),
            ("Paid by credits", dollars(invoice.credits_nanodollars)),
            ("Due, rounded to the cent", f"{rounded:f}"),
        ):
            row = table.row(style=FontFace(emphasis="BOLD"))
            row.cell(name, colspan=4)
            row.cell(amount)


def _text(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")
