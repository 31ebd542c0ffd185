"""POST /v1/webhooks/payments: a payment provider tells of payments and refunds.

The caller has no key; it signs what it sends as the Standard Webhooks specification has it. Nothing of a message is
read before its signature and its age are right, and a message that is told again counts once: a payment by its id, a
refund by the id of the message.
"""

import hmac
import re
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.ledger.v1.ledger_api import LedgerService
from modelplane.ledger.v1.ledger_pb2 import RecordPaymentRequest
from services.faults import InvalidRequest, NotFound, Unauthenticated
from services.gateway.calls import Call
from services.gateway.organization.actors import MOST_KEPT
from services.gateway.requests.values import Json, body_object, members, missing, one_of, string
from services.pricing.rates import nanodollars
from services.settings import SettingsError
from services.webhooks import SecretError, secrets_of, signature

MOST_BODY_BYTES: Final = 64 * 1024
TOLERANCE_S: Final = 300
PAID: Final = "payment.succeeded"
REFUNDED: Final = "payment.refunded"
_AMOUNT: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class PaymentsWebhook:
    """The endpoint. `secrets` as the setting has them, "" when there is no provider; `clock` gives seconds of the
    epoch. Raises SettingsError."""

    def __init__(self, ledger: LedgerService, secrets: str, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._clock = clock
        try:
            self._secrets: Sequence[bytes] = secrets_of(secrets)
        except SecretError as error:
            raise SettingsError(f"MODELPLANE_GATEWAY_PAYMENT_WEBHOOK_SECRETS: {error}") from error

    async def __call__(self, call: Call) -> None:
        if not self._secrets:
            raise NotFound("unknown_url", f"Invalid URL ({call.method} {call.path})")
        body = await call.body(MOST_BODY_BYTES)
        message_id = self._signed_id(call, body)
        fields = body_object(body)
        if "type" not in fields:
            raise missing("type")
        kind = string("type", fields["type"])
        # Providers tell of many things; what is not answered with success is sent again.
        if kind in (PAID, REFUNDED):
            data = fields.get("data")
            known = {name: data.get(name) for name in _DATA} if isinstance(data, dict) else data
            payment = members("data", known, _DATA, tuple(_DATA))
            payment_id, amount = payment["payment_id"], payment["amount"]
            if kind == REFUNDED:
                payment_id, amount = f"{payment_id}:{message_id}", -amount
            await self._ledger.record_payment(
                RecordPaymentRequest(
                    organization_id=payment["organization"],
                    payment_id=payment_id,
                    nanodollars=amount,
                    actor=Actor(
                        user_agent=call.header(b"user-agent")[:MOST_KEPT],
                        ip_address=call.peer,
                        request_id=call.request_id,
                    ),
                )
            )
        await call.respond(200, b'{"received":true}')

    def _signed_id(self, call: Call, body: bytes) -> str:
        """The id of a message that the provider has signed, lately. Raises Unauthenticated."""
        message_id, timestamp = call.header(b"webhook-id"), call.header(b"webhook-timestamp")
        if not message_id or not re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII):
            raise _unsigned("The headers webhook-id and webhook-timestamp are missing or malformed.")
        if abs(self._clock() - int(timestamp)) > TOLERANCE_S:
            raise _unsigned("The message's timestamp is too far from now.")
        given = [text.encode() for text in call.header(b"webhook-signature").split()]
        expected = [signature(secret, message_id, int(timestamp), body).encode() for secret in self._secrets]
        # Each pair is compared, so that the time says nothing of which secret it was.
        matches = [hmac.compare_digest(one, other) for one in given for other in expected]
        if not any(matches):
            raise _unsigned("No signature of the message is right.")
        return message_id


def parse_amount(path: str, value: Json) -> int:
    """Nano-dollars of a decimal of dollars in a string, above 0. Raises InvalidRequest."""
    text = string(path, value)
    if not _AMOUNT.fullmatch(text) or not Decimal(text):
        raise InvalidRequest(
            "invalid_value", f"Invalid '{path}': it is not an amount of dollars such as \"100.00\".", param=path
        )
    return nanodollars(text)


_DATA: Final[Any] = {
    "organization": string,
    "payment_id": string,
    "amount": parse_amount,
    "currency": one_of("USD"),
}


def _unsigned(message: str) -> Unauthenticated:
    return Unauthenticated("invalid_webhook_signature", message)
