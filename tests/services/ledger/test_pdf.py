"""Invoices as PDF: all that they say is there, on as many pages as it takes, in whatever letters it was written."""

import re
import zlib

import pytest

from modelplane.ledger.v1.ledger_pb2 import Invoice, InvoiceLine
from services.ledger.pdf import dollars, render


def text(document: bytes) -> str:
    """What its pages show, in the order in which it is drawn."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", document, re.DOTALL)
    drawn = b"".join(zlib.decompress(stream) for stream in streams if stream.startswith(b"x"))
    shown = b" ".join(re.findall(rb"\(((?:\\.|[^\\)])*)\) ?Tj", drawn))
    return re.sub(rb"\\(.)", rb"\1", shown).decode("latin-1")


def invoice(lines: int = 2, **changes: object) -> Invoice:
    values: dict[str, object] = {
        "id": "inv_1",
        "organization_id": "org-1",
        "organization_name": "Exämple (Ltd)",
        "month": "2026-10",
        "issued_at": 1_793_500_000,
        "lines": [
            InvoiceLine(
                project_id="proj_1",
                model=f"gpt-{number}",
                line="input",
                quantity=1_234_567,
                nanodollars=-5 if number else 1_234_567_890,
            )
            for number in range(lines)
        ],
        "total_nanodollars": 1_234_567_885,
        "credits_nanodollars": 1_000_000_000,
    }
    return Invoice(**{**values, **changes})  # type: ignore[arg-type]


def test_everything_is_on_it() -> None:
    shown = text(render(invoice()))
    for part in (
        "inv_1",
        "Exämple (Ltd) (org-1)",
        "2026-10",
        "proj_1",
        "gpt-1",
        "1,234,567",
        "1.23456789",
        "-0.000000005",
        "1.234567885",
        "1.00",
        "0.23",
    ):
        assert part in shown, (part, shown)
    assert "Draft" not in shown


def test_a_draft_says_so() -> None:
    assert "Draft" in text(render(invoice(issued_at=0)))


def test_long_invoices_have_several_pages_with_all_lines() -> None:
    document = render(invoice(lines=300))
    shown = text(document)
    assert all(f"gpt-{number} " in shown for number in range(300))
    assert document.count(b"/Type /Page\n") > 3


@pytest.mark.parametrize("name", ["名前", "a" * 256, "**bold** <b>", "a " * 128, "", "w" * 100 + "名"])
def test_any_name_is_possible(name: str) -> None:
    named = invoice(organization_name=name)
    named.lines.add(project_id=name, model=name, line="input", nanodollars=1)
    assert render(named).startswith(b"%PDF-")


def test_the_same_invoice_is_the_same_document() -> None:
    assert render(invoice()) == render(invoice())


@pytest.mark.parametrize(
    ("nanodollars", "shown"),
    [
        (0, "0.00"),
        (10**9, "1.00"),
        (1_500_000_000, "1.50"),
        (1, "0.000000001"),
        (-123_456_000, "-0.123456"),
        (10**18, "1000000000.00"),
    ],
)
def test_amounts_are_exact(nanodollars: int, shown: str) -> None:
    assert dollars(nanodollars) == shown
