"""The service on a database of its own, with a clock that tests move; nothing runs in the background."""

import time
from dataclasses import dataclass, field

import pytest

from modelplane.admin.v1.admin_pb2 import Actor
from modelplane.ledger.v1 import ledger_pb2 as pb
from modelplane.tenants.v1 import tenants_pb2
from services.ledger.service import Ledger
from services.ledger.settings import LedgerSettings
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore

ACTOR = Actor(key_id="key_1", owner_id="user-1")
DOLLAR = 10**9


@dataclass
class Clock:
    """Seconds of the epoch, as tests say."""

    now_s: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenants(database: Database, clock: Clock) -> Tenants:
    return Tenants(TenantsStore(database), TenantsSettings(), clock=clock)


@pytest.fixture
def service(database: Database, tenants: Tenants, clock: Clock) -> Ledger:
    return Ledger(database, tenants, LedgerSettings(), clock=clock)


@pytest.fixture
async def mine(tenants: Tenants) -> str:
    """The id of an organisation."""
    made = await tenants.create_organization(tenants_pb2.CreateOrganizationRequest(name="Mine", actor=ACTOR))
    return made.organization.id


@pytest.fixture
async def other(tenants: Tenants) -> str:
    made = await tenants.create_organization(tenants_pb2.CreateOrganizationRequest(name="Other", actor=ACTOR))
    return made.organization.id


async def pay(service: Ledger, organization_id: str, payment_id: str, dollars: float) -> pb.RecordPaymentResponse:
    return await service.record_payment(
        pb.RecordPaymentRequest(
            organization_id=organization_id,
            payment_id=payment_id,
            nanodollars=round(dollars * DOLLAR),
            actor=ACTOR,
        )
    )


async def grant(
    service: Ledger, organization_id: str, grant_id: str, dollars: float, expires_at: int = 0
) -> pb.GrantCreditsResponse:
    return await service.grant_credits(
        pb.GrantCreditsRequest(
            organization_id=organization_id,
            grant_id=grant_id,
            nanodollars=round(dollars * DOLLAR),
            expires_at=expires_at,
            actor=ACTOR,
        )
    )


async def balance(service: Ledger, organization_id: str) -> pb.GetBalanceResponse:
    return await service.get_balance(pb.GetBalanceRequest(organization_id=organization_id))


async def postings(
    service: Ledger, organization_id: str, *, usage: bool = False, transaction_id: str = ""
) -> list[tuple[str, str, str, str, int]]:
    """What was booked, the newest first: transaction, line, debit, credit, nano-dollars; read by small pages."""
    found: list[tuple[str, str, str, str, int]] = []
    page = ""
    while True:
        answer = await service.list_postings(
            pb.ListPostingsRequest(
                organization_id=organization_id, transaction_id=transaction_id, usage=usage, limit=2, page=page
            )
        )
        found += [(one.transaction_id, one.line, one.debit, one.credit, one.nanodollars) for one in answer.postings]
        page = answer.next_page
        if not page:
            return found
