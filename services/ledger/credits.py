"""Keeps what organisations have: credits, their expiry, and whether they pay before or after.

Kept true: a grant counts once however often it is told; what credits are added first covers what is owed.
"""

from collections.abc import Callable

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.ledger.v1 import ledger_pb2 as pb
from services import asked, telemetry
from services.faults import InvalidRequest
from services.identifiers import new_id
from services.ledger import lookups
from services.ledger.store import LedgerStore
from services.ledger.store.credits import kept_id
from services.storage.postings import CREDITS, Entry

CENT = 10**7
PLATFORM = Actor(user_agent="modelplane")

log = telemetry.logger(__name__)


class Credits:
    """The contract's part about balances, terms and grants. `clock` gives seconds of the epoch."""

    def __init__(self, store: LedgerStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def get_balance(self, request: pb.GetBalanceRequest, /) -> pb.GetBalanceResponse:
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            balance = await records.credits.balance(organization.id)
            left = await records.credits.left(organization.id)
        bounds = []
        if balance.limit_cents is not None:
            bounds.append(balance.limit_cents * CENT - balance.month)
        if organization.prepaid:
            bounds.append(balance.credits - balance.owed)
        return pb.GetBalanceResponse(
            prepaid=organization.prepaid,
            credits_nanodollars=balance.credits,
            owed_nanodollars=balance.owed,
            reserved_nanodollars=balance.reserved,
            month_nanodollars=balance.month,
            available_nanodollars=max(0, min(bounds) - balance.reserved) if bounds else None,
            credits=left,
        )

    async def set_terms(self, request: pb.SetTermsRequest, /) -> pb.SetTermsResponse:
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            await records.set_terms(organization.id, prepaid=request.prepaid)
            kind = "organization.terms.updated"
            await records.audit(kind, organization.id, request.actor, organization.id, prepaid=request.prepaid)
        return pb.SetTermsResponse()

    async def grant_credits(self, request: pb.GrantCreditsRequest, /) -> pb.GrantCreditsResponse:
        amount = asked.number(request.nanodollars, 1, lookups.MOST_NANODOLLARS, "nanodollars")
        grant_id = asked.line(request.grant_id, "grant_id") or new_id("grant_")
        description = asked.line(request.description, "description")
        now_ms = int(self._clock() * 1000)
        async with self._store.transaction() as records:
            organization = await lookups.organization(records, request.organization_id)
            await records.lock(organization.id)
            credit_id = kept_id(organization.id, grant_id)
            if known := await records.credits.get(organization.id, credit_id):
                if (known.kind, known.nanodollars) != ("grant", amount):
                    raise InvalidRequest(
                        "invalid_value", f"The id '{grant_id}' stands for other credits.", param="grant_id"
                    )
                return pb.GrantCreditsResponse(credit=known)
            expires_at = lookups.expiry(request.expires_at, now_ms // 1000)
            await records.credits.add(
                organization.id, credit_id, "grant", amount, expires_at=expires_at, description=description
            )
            accounts = ("grants", CREDITS)
            await records.credits.post(
                Entry(credit_id, "grant", organization.id, "", "", "", *accounts, amount, 0, now_ms)
            )
            await records.credits.draw(organization.id, credit_id, now_ms)
            await records.audit(
                "organization.credits.granted",
                organization.id,
                request.actor,
                grant_id,
                amount_nanodollars=amount,
                expires_at=expires_at,
                description=description,
            )
            credit = await records.credits.get(organization.id, credit_id)
        return pb.GrantCreditsResponse(credit=credit)

    async def expire(self) -> None:
        """Books what is left of expired credits as expired. Fault: database_unavailable."""
        async with self._store.transaction() as records:
            owners = await records.credits.owners_of_expired()
        for organization_id in owners:
            async with self._store.transaction() as records:
                await records.lock(organization_id)
                for entry in await records.credits.expire(organization_id, int(self._clock() * 1000)):
                    credit_id = entry.transaction_id.removeprefix("expiry_").removesuffix(f"@{organization_id}")
                    kind, amount = "organization.credits.expired", entry.nanodollars
                    await records.audit(kind, organization_id, PLATFORM, credit_id, amount_nanodollars=amount)
                    log.info("credits expired", organization_id=organization_id, credit_id=credit_id)
