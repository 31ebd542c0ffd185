"""What a payment provider tells: signed, lately, once; everything else is refused before it is read."""

import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import GetBalanceRequest
from modelplane.tenants.v1.tenants_pb2 import CreateOrganizationRequest, GetOrganizationRequest
from services import webhooks
from services.gateway.payments_webhook import PaymentsWebhook
from services.gateway.settings import GatewaySettings
from services.ledger.service import Ledger
from services.ledger.settings import LedgerSettings
from services.settings import SettingsError
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from tests.services.gateway.conftest import running_edge
from tests.services.gateway.schemas import assert_matches

PATH = "/v1/webhooks/payments"
OLD, NEW = b"the old secret", b"the new secret"
SECRETS = ",".join(f"whsec_{base64.b64encode(secret).decode()}" for secret in (OLD, NEW))
DOLLAR = 10**9


class Provider:
    """A payment provider, and the ledger that it tells."""

    def __init__(self, http: httpx.AsyncClient, ledger: Ledger, tenants: Tenants, organization_id: str) -> None:
        self.http = http
        self.ledger = ledger
        self.tenants = tenants
        self.organization_id = organization_id

    async def send(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str | None]:
        """Status and, of a refusal, its code."""
        response = await self.http.post(PATH, content=body, headers=dict(headers))
        if response.status_code == 200:
            return 200, None
        assert_matches("ErrorResponse", response.json())
        return response.status_code, response.json()["error"]["code"]

    async def tell(
        self,
        kind: str,
        payment_id: str,
        amount: str,
        *,
        message_id: str = "msg_1",
        secret: bytes = NEW,
        **changes: Any,
    ) -> tuple[int, str | None]:
        data = {"organization": self.organization_id, "payment_id": payment_id, "amount": amount, "currency": "USD"}
        body = json.dumps({"type": kind, "data": {**data, **changes}}).encode()
        return await self.send(webhooks.headers([secret], message_id, int(time.time()), body), body)

    async def balance(self) -> int:
        request = GetBalanceRequest(organization_id=self.organization_id)
        return (await self.ledger.get_balance(request)).credits_nanodollars


@pytest.fixture
async def provider(database: Database) -> AsyncIterator[Provider]:
    tenants = Tenants(TenantsStore(database), TenantsSettings())
    ledger = Ledger(database, tenants, LedgerSettings())
    made = await tenants.create_organization(CreateOrganizationRequest(name="Payers"))
    settings = GatewaySettings(payment_webhook_secrets=SECRETS)
    async with (
        running_edge(settings, administration={LedgerService: ledger}) as edge,
        httpx.AsyncClient(base_url=edge.url, verify=False) as http,
    ):
        yield Provider(http, ledger, tenants, made.organization.id)


async def test_payments_and_refunds_count_once(provider: Provider) -> None:
    for secret in (OLD, NEW, NEW):
        assert await provider.tell("payment.succeeded", "pi_1", "100.00", secret=secret) == (200, None)
    assert await provider.balance() == 100 * DOLLAR
    found = await provider.tenants.get_organization(GetOrganizationRequest(organization_id=provider.organization_id))
    assert (found.organization.paid_nanodollars, found.organization.usage_tier) == (100 * DOLLAR, 1)
    # Two refunds of one payment are two messages; each may come twice.
    for message_id in ("msg_2", "msg_3", "msg_2", "msg_3"):
        assert await provider.tell("payment.refunded", "pi_1", "0.000000001", message_id=message_id) == (200, None)
    assert await provider.balance() == 100 * DOLLAR - 2
    assert await provider.tell("payment.succeeded", "pi_1", "99") == (400, "invalid_value")
    assert await provider.tell("payment.refunded", "pi_1", "1000", message_id="msg_4") == (400, "invalid_value")


async def test_other_events_are_taken_and_ignored(provider: Provider) -> None:
    assert await provider.tell("customer.created", "pi_1", "1") == (200, None)
    assert await provider.balance() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": ""},
        {"webhook-signature": "v1,bm90IHJpZ2h0"},
        {"webhook-signature": "é"},
        {"webhook-id": "msg_2"},
        {"webhook-id": ""},
        {"webhook-timestamp": ""},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "1e9"},
        {"webhook-timestamp": str(int(time.time()) + 1)},
    ],
)
async def test_what_is_not_signed_is_refused(provider: Provider, changes: dict[str, str]) -> None:
    body = b"not even JSON"
    headers = {**webhooks.headers([NEW], "msg_1", int(time.time()) - 10, body), **changes}
    encoded: Any = {name: value.encode("latin-1") for name, value in headers.items()}
    assert await provider.send(encoded, body) == (401, "invalid_webhook_signature")


async def test_a_body_that_was_changed_is_refused(provider: Provider) -> None:
    headers = webhooks.headers([NEW], "msg_1", int(time.time()), b"{}")
    assert await provider.send(headers, b"{} ") == (401, "invalid_webhook_signature")
    headers = webhooks.headers([b"another secret"], "msg_1", int(time.time()), b"{}")
    assert await provider.send(headers, b"{}") == (401, "invalid_webhook_signature")


@pytest.mark.parametrize("late_s", [-330, 330])
async def test_old_messages_and_those_of_the_future_are_refused(provider: Provider, late_s: int) -> None:
    headers = webhooks.headers([NEW], "msg_1", int(time.time()) - late_s, b"{}")
    assert await provider.send(headers, b"{}") == (401, "invalid_webhook_signature")


async def test_one_right_signature_among_others_is_enough(provider: Provider) -> None:
    headers = dict(webhooks.headers([b"unknown", OLD], "msg_1", int(time.time()), b'{"type": "x"}'))
    headers["webhook-signature"] = "v2,AAAA " + headers["webhook-signature"]
    assert await provider.send(headers, b'{"type": "x"}') == (200, None)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"amount": "0"}, 400),
        ({"amount": "-5"}, 400),
        ({"amount": "1e3"}, 400),
        ({"amount": "٣"}, 400),
        ({"amount": "0.0000000001"}, 400),
        ({"amount": 5}, 400),
        ({"currency": "EUR"}, 400),
        ({"currency": None}, 400),
        ({"payment_id": ""}, 400),
        ({"payment_id": "a\0"}, 400),
        ({"organization": "org-none"}, 404),
        ({"organization": None}, 400),
    ],
)
async def test_what_is_no_payment(provider: Provider, changes: dict[str, Any], status: int) -> None:
    found = await provider.tell("payment.succeeded", **{"payment_id": "pi_1", "amount": "5", **changes})
    assert found[0] == status
    assert await provider.balance() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{}", 400), (b'{"type": 1}', 400), (b'{"type": "payment.succeeded"}', 400)],
)
async def test_strange_bodies(provider: Provider, body: bytes, status: int) -> None:
    assert (await provider.send(webhooks.headers([NEW], "m", int(time.time()), body), body))[0] == status


async def test_a_long_body_is_refused_unread(provider: Provider) -> None:
    body = b" " * (64 * 1024 + 1)
    found = await provider.send(webhooks.headers([NEW], "m", int(time.time()), body), body)
    assert found == (413, "request_too_large")


async def test_without_a_secret_there_is_no_such_endpoint() -> None:
    async with running_edge() as edge, edge.http() as http:
        assert (await http.post(PATH, content=b"{}")).status_code == 404


def test_a_broken_secret_ends_the_start() -> None:
    with pytest.raises(SettingsError, match="PAYMENT_WEBHOOK_SECRETS") as refused:
        PaymentsWebhook(None, "whsec_!!!")  # type: ignore[arg-type]
    assert "!!!" not in str(refused.value)
