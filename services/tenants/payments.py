"""Moves organisations between usage tiers: by what they pay, by their age, and as operators fix it.

Keeps true: a payment counts once, however often it is told; a tier that is not pinned is what `tiers` says, at once
after a payment and soon after an age is reached; every move is in the audit log or did not happen.
"""

import asyncio
import time
from collections.abc import Callable

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.tenants.v1 import tenants_pb2 as pb
from services import asked, telemetry
from services.faults import Fault, InvalidRequest
from services.tenants import checks, lookups, tiers
from services.tenants.organizations import platform
from services.tenants.settings import TenantsSettings
from services.tenants.store import Records, TenantsStore

MOST_NANODOLLARS = 2**63 - 1

log = telemetry.logger(__name__)


class Payments:
    """The contract's part about usage tiers. `clock` gives seconds of the epoch."""

    def __init__(
        self, store: TenantsStore, settings: TenantsSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def record_payment(self, request: pb.RecordPaymentRequest, /) -> pb.RecordPaymentResponse:
        payment_id, amount = checks.name(request.payment_id, "payment_id"), request.amount_nanodollars
        if amount == 0:
            raise InvalidRequest("invalid_value", "A payment of nothing is none.", param="amount_nanodollars")
        now_s = self._now_s()
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id, locked=True)
            if not await records.organizations.add_payment(organization.id, payment_id, amount, now_s):
                if not await records.organizations.has_payment(organization.id, payment_id, amount):
                    raise InvalidRequest(
                        "invalid_value",
                        f"The payment '{payment_id}' was recorded before, with another amount.",
                        param="payment_id",
                    )
                return pb.RecordPaymentResponse(organization=organization)
            paid = organization.paid_nanodollars + amount
            if abs(paid) > MOST_NANODOLLARS:
                raise InvalidRequest("invalid_value", "So much cannot be paid.", param="amount_nanodollars")
            organization.paid_nanodollars = paid
            if amount > 0 and not organization.first_paid_at:
                organization.first_paid_at = now_s
            await records.audit(
                "organization.payment.recorded",
                organization.id,
                request.actor,
                payment_id,
                data={"amount_nanodollars": amount, "paid_nanodollars": paid},
            )
            await self._follow_payments(records, organization, request.actor, now_s)
        log.info(
            "payment recorded",
            organization_id=organization.id,
            usage_tier=organization.usage_tier,
            next_tier_at=tiers.next_at(paid, organization.first_paid_at, now_s),
        )
        return pb.RecordPaymentResponse(organization=organization)

    async def pin_tier(self, request: pb.PinTierRequest, /) -> pb.PinTierResponse:
        pinned = request.HasField("usage_tier")
        asked.number(request.usage_tier, 0, tiers.HIGHEST, "usage_tier")
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id, locked=True)
            before = organization.usage_tier
            organization.tier_pinned = pinned
            organization.usage_tier = request.usage_tier if pinned else _earned(organization, self._now_s())
            await records.organizations.set_tier(organization)
            await _note(records, organization, request.actor, before)
        return pb.PinTierResponse(organization=organization)

    async def graduate(self) -> None:
        """Raises the organisations that have earned it by their age. Fault: database_unavailable."""
        most = self._settings.graduation_rows
        raised = most
        while raised == most:
            now_s = self._now_s()
            async with self._store.transaction() as records:
                due = await records.organizations.due(tiers.THRESHOLDS, now_s, most)
                for organization in due:
                    await self._follow_payments(records, organization, platform(), now_s)
            raised = len(due)

    async def keep_graduating(self) -> None:
        """Does so again and again."""
        while True:
            try:
                await self.graduate()
            except Fault as fault:
                log.warning("nobody graduated", reason=fault.reason)
            except Exception as error:  # the next round may go better
                log.error("nobody graduated", exc_info=error)
            await asyncio.sleep(self._settings.graduation_interval_s)

    async def _follow_payments(self, records: Records, organization: pb.Organization, actor: Actor, now_s: int) -> None:
        """Writes what was paid, and the tier that this gives."""
        before = organization.usage_tier
        if not organization.tier_pinned:
            organization.usage_tier = _earned(organization, now_s)
        await records.organizations.set_tier(organization)
        if organization.usage_tier != before:
            await _note(records, organization, actor, before)

    def _now_s(self) -> int:
        return int(self._clock())


def _earned(organization: pb.Organization, now_s: int) -> int:
    return tiers.usage_tier(organization.paid_nanodollars, organization.first_paid_at, now_s)


async def _note(records: Records, organization: pb.Organization, actor: Actor, before: int) -> None:
    changes = {
        "usage_tier": {"from": before, "to": organization.usage_tier},
        "tier_pinned": organization.tier_pinned,
    }
    kind = "organization.usage_tier.updated"
    await records.audit(kind, organization.id, actor, organization.id, changes_requested=changes)
    log.info("usage tier changed", organization_id=organization.id, before=before, usage_tier=organization.usage_tier)
