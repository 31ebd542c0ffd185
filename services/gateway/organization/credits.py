"""/v1/organization/credits and /v1/organization/prices: what an organisation has and owes, and what models cost.

Modelplane's own: OpenAI's API has neither. Amounts are decimals of dollars in strings, which are exact.
"""

from typing import Any, Final

import msgspec

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import Credit, GetBalanceRequest, ListPricesRequest, Price
from services.gateway.calls import Call
from services.pricing.rates import dollars

CURRENCY: Final = "USD"


class Credits:
    """The endpoints."""

    def __init__(self, ledger: LedgerService) -> None:
        self._ledger = ledger

    async def balance(self, call: Call) -> None:
        """`available` is null when neither a spend limit nor prepaid credits bound what may be spent."""
        found = await self._ledger.get_balance(GetBalanceRequest(organization_id=call.caller.organization_id))
        bounded = found.HasField("available_nanodollars")
        shown = {
            "object": "organization.credits",
            "terms": "prepaid" if found.prepaid else "invoiced",
            "currency": CURRENCY,
            "balance": dollars(found.credits_nanodollars),
            "owed": dollars(found.owed_nanodollars),
            "on_hold": dollars(found.reserved_nanodollars),
            "used_this_month": dollars(found.month_nanodollars),
            "available": dollars(found.available_nanodollars) if bounded else None,
            "data": [_credit(credit) for credit in found.credits],
        }
        await call.respond(200, msgspec.json.encode(shown))

    async def prices(self, call: Call) -> None:
        """Those in force, of all models; see services/pricing/rates.py."""
        found = await self._ledger.list_prices(ListPricesRequest())
        shown = {"object": "list", "currency": CURRENCY, "data": [_price(price) for price in found.prices]}
        await call.respond(200, msgspec.json.encode(shown))


def _credit(credit: Credit) -> dict[str, Any]:
    return {
        "object": "organization.credit",
        "id": credit.id,
        "kind": credit.kind,
        "amount": dollars(credit.nanodollars),
        "remaining": dollars(credit.remaining_nanodollars),
        "created_at": credit.created_at,
        "expires_at": credit.expires_at or None,
        "description": credit.description or None,
    }


def _price(price: Price) -> dict[str, Any]:
    return {
        "object": "organization.price",
        "id": str(price.id),
        "model": price.model,
        "effective_at": price.effective_at,
        "source": price.source,
        "rates": msgspec.Raw(price.rates_json),
    }
