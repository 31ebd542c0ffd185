"""Credits, prices and invoices over HTTP: the figures of the ledger, exact, and nobody else's."""

import json
from typing import Any

import pytest

from modelplane.ledger.v1 import ledger_pb2
from modelplane.usage.v1.usage_pb2 import Attribution
from services.pricing.rates import parse
from services.storage import Database
from tests.services.gateway.organization.conftest import Console, Organization
from tests.services.ledger import written


async def use(database: Database, organization: Organization) -> None:
    """A request of 1.5 dollars."""
    who = Attribution(organization_id=organization.id, project_id=organization.project_id, key_id="key_1")
    await written.add_prices(database, 0, {"plain": {"input": "1.5"}})
    tokens: dict[str, Any] = {"input_tokens": 10**6, "cached_input_tokens": 0, "output_tokens": 0}
    plain = {"model": "plain", "service_tier": "default", "batch": False, "tools": None}
    await written.add_usage(database, [written.usage(1, request_id="req_1", attribution=who, **tokens, **plain)])


async def get(console: Console, organization: Organization, path: str) -> Any:
    response = await console.ask(organization.admin_key, "GET", f"/v1/organization{path}")
    assert response.status_code == 200
    return response.json()


async def test_credits(console: Console, mine: Organization, other: Organization, database: Database) -> None:
    await use(database, mine)
    grant: Any = {"organization_id": mine.id, "grant_id": "gift", "nanodollars": 2 * 10**9, "expires_at": 4_000_000_000}
    await console.ledger.grant_credits(ledger_pb2.GrantCreditsRequest(**grant, description="welcome"))
    found = await get(console, mine, "/credits")
    [credit] = found.pop("data")
    assert found == {
        "object": "organization.credits",
        "terms": "invoiced",
        "currency": "USD",
        "balance": "0.5",
        "owed": "0",
        "on_hold": "0",
        "used_this_month": found["used_this_month"],
        "available": None,
    }
    assert {**credit, "created_at": 0} == {
        "object": "organization.credit",
        "id": "gift",
        "kind": "grant",
        "amount": "2",
        "remaining": "0.5",
        "created_at": 0,
        "expires_at": 4_000_000_000,
        "description": "welcome",
    }
    await console.ledger.set_terms(ledger_pb2.SetTermsRequest(organization_id=mine.id, prepaid=True))
    found = await get(console, mine, "/credits")
    assert (found["terms"], found["available"]) == ("prepaid", "0.5")
    assert (await get(console, other, "/credits"))["data"] == []


async def test_prices(console: Console, mine: Organization) -> None:
    rates = parse({"input": "0.15", "images": [{"size": "1024x1024", "price": "0.04"}]})
    await console.ledger.sync_prices({"a": rates}, {})
    [price] = (await get(console, mine, "/prices"))["data"]
    assert (price["model"], price["source"], price["effective_at"]) == ("a", "default", 0)
    assert price["rates"] == {"input": "0.15", "images": [{"price": "0.04", "size": "1024x1024"}]}


async def test_invoices(console: Console, mine: Organization, other: Organization, database: Database) -> None:
    await use(database, mine)
    [draft] = (await get(console, mine, "/invoices"))["data"]
    assert (draft["status"], draft["total"], draft["due"], draft["issued_at"]) == ("draft", "1.5", "1.5", None)
    found = await get(console, mine, f"/invoices/{draft['id']}")
    lines = found.pop("lines")
    assert (found, len(lines)) == (draft, 1)
    assert lines[0] == {
        "project_id": mine.project_id,
        "model": "plain",
        "line_item": "input",
        "quantity": 10**6,
        "amount": "1.5",
    }
    [theirs] = (await get(console, other, "/invoices"))["data"]
    assert theirs["total"] == "0"
    assert await console.refused(mine.admin_key, "GET", "/invoices/inv_none") == (
        404,
        "invoice_not_found",
        "invoice_id",
    )
    assert (await console.refused(mine.admin_key, "GET", f"/invoices/{draft['id']}?format=xml"))[0] == 400


@pytest.mark.parametrize(
    ("accept", "query", "is_pdf"),
    [
        ("application/pdf", "", True),
        ("*/*", "?format=pdf", True),
        ("application/pdf", "?format=json", False),
        ("text/html, */*", "", False),
    ],
)
async def test_an_invoice_comes_as_pdf_for_who_asks(
    console: Console, mine: Organization, accept: str, query: str, is_pdf: bool
) -> None:
    [draft] = (await get(console, mine, "/invoices"))["data"]
    headers = {"authorization": f"Bearer {mine.admin_key}", "accept": accept}
    response = await console.http.get(f"/v1/organization/invoices/{draft['id']}{query}", headers=headers)
    assert response.status_code == 200
    if is_pdf:
        assert response.headers["content-type"] == "application/pdf"
        assert response.content.startswith(b"%PDF-")
        assert f"invoice-{draft['month']}.pdf" in response.headers["content-disposition"]
    else:
        assert json.loads(response.content)["id"] == draft["id"]


@pytest.mark.parametrize("path", ["/credits", "/prices", "/invoices", "/invoices/2026-10"])
async def test_keys_of_projects_see_no_money(console: Console, mine: Organization, path: str) -> None:
    assert (await console.refused(mine.project_key, "GET", path))[0] == 403
    assert (await console.refused("", "GET", path))[0] == 401
