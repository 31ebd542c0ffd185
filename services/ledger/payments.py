"""Books payments and what is given back: of a payment, and of what a request was billed.

Kept true: a payment counts once in the usage tiers and once in the ledger, in this order, so that whoever repeats a
call that was cut short completes it; nothing is paid back that is not there any more.
"""

from collections.abc import Callable

from modelplane.ledger.v1 import ledger_pb2 as pb
from modelplane.tenants.v1 import tenants_pb2
from modelplane.tenants.v1.tenants_api import TenantsService
from services import asked
from services.faults import InvalidRequest, NotFound
from services.ledger import lookups
from services.ledger.store import LedgerStore
from services.ledger.store.credits import kept_id
from services.storage.postings import CREDITS, Entry


class Payments:
    """The contract's part about money that comes and goes back. `clock` gives seconds of the epoch."""

    def __init__(self, store: LedgerStore, tenants: TenantsService, clock: Callable[[], float]) -> None:
        self._store = store
        self._tenants = tenants
        self._clock = clock

    async def record_payment(self, request: pb.RecordPaymentRequest, /) -> pb.RecordPaymentResponse:
        lookups.name(request.payment_id, "payment_id")
        amount = asked.number(request.nanodollars, -lookups.MOST_NANODOLLARS, lookups.MOST_NANODOLLARS, "nanodollars")
        if amount == 0:
            raise InvalidRequest("invalid_value", "A payment of nothing is none.", param="nanodollars")
        if amount > 0:
            await self._check(request)
            organization = await self._tell_tenants(request)
            booked = await self._book(request)
        else:
            booked = await self._pay_back(request)
            organization = await self._tell_tenants(request)
        return pb.RecordPaymentResponse(
            booked=booked, usage_tier=organization.usage_tier, paid_nanodollars=organization.paid_nanodollars
        )

    async def refund_usage(self, request: pb.RefundUsageRequest, /) -> pb.RefundUsageResponse:
        reason = asked.line(request.reason, "reason")
        if asked.has_nul(request.organization_id, request.request_id):
            raise _no_usage(request.request_id)
        now_ms = self._now_ms()
        async with self._store.transaction() as records:
            await records.lock(request.organization_id)
            billed = await records.usage.billed(request.organization_id, request.request_id)
            if billed is None:
                raise _no_usage(request.request_id)
            if refunded := await records.usage.refunded(request.request_id):
                return pb.RefundUsageResponse(nanodollars=refunded)
            if billed.nanodollars == 0:
                raise InvalidRequest(
                    "invalid_value", f"The request '{request.request_id}' cost nothing.", param="request_id"
                )
            await records.usage.refund(request.organization_id, request.request_id, billed, now_ms)
            credit_id = f"refund_{request.request_id}"
            await records.credits.add(
                request.organization_id, credit_id, "grant", billed.nanodollars, description=reason
            )
            await records.credits.draw(request.organization_id, credit_id, now_ms)
            await records.audit(
                "organization.usage.refunded",
                request.organization_id,
                request.actor,
                request.request_id,
                amount_nanodollars=billed.nanodollars,
                reason=reason,
            )
        return pb.RefundUsageResponse(nanodollars=billed.nanodollars)

    async def _check(self, request: pb.RecordPaymentRequest) -> None:
        """That what can be known beforehand does not stand against a payment."""
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            known = await records.credits.get(organization.id, kept_id(organization.id, request.payment_id))
        if known is None:
            lookups.expiry(request.expires_at, self._now_ms() // 1000)
        elif known.kind != "payment":
            raise _other_amount(request)

    async def _tell_tenants(self, request: pb.RecordPaymentRequest) -> tenants_pb2.Organization:
        answer = await self._tenants.record_payment(
            tenants_pb2.RecordPaymentRequest(
                organization_id=request.organization_id,
                payment_id=request.payment_id,
                amount_nanodollars=request.nanodollars,
                actor=request.actor,
            )
        )
        return answer.organization

    async def _book(self, request: pb.RecordPaymentRequest) -> bool:
        of, amount, now_ms = request.organization_id, request.nanodollars, self._now_ms()
        async with self._store.transaction() as records:
            await records.lock(of)
            credit_id = kept_id(of, request.payment_id)
            if await records.credits.get(of, credit_id):
                return False
            await records.credits.add(of, credit_id, "payment", amount, expires_at=request.expires_at)
            await records.credits.post(Entry(credit_id, "payment", of, "", "", "", "cash", CREDITS, amount, 0, now_ms))
            await records.credits.draw(of, credit_id, now_ms)
        return True

    async def _pay_back(self, request: pb.RecordPaymentRequest) -> bool:
        """Books the refund first: what is not there any more must not count for the usage tier either."""
        amount = -request.nanodollars
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            await records.lock(organization.id)
            told = await records.credits.paid(organization.id, request.payment_id)
            if told is not None and told != -amount:
                raise _other_amount(request)
            if refunded := await records.credits.refunded(organization.id, request.payment_id):
                if refunded != amount:
                    raise _other_amount(request)
                return False
            missing = await records.credits.pay_back(organization.id, request.payment_id, amount, self._now_ms())
            if missing:
                raise InvalidRequest(
                    "invalid_value",
                    f"Of what was paid only {(amount - missing) / 10**9:g} dollars are left to be paid back.",
                    param="nanodollars",
                )
        return True

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _no_usage(request_id: str) -> NotFound:
    return NotFound("usage_not_found", f"There is no usage of a request '{request_id}'.", param="request_id")


def _other_amount(request: pb.RecordPaymentRequest) -> InvalidRequest:
    return InvalidRequest(
        "invalid_value",
        f"The payment '{request.payment_id}' was recorded before, with another amount.",
        param="payment_id",
    )
