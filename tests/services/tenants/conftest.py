"""The service on a database of its own, with a clock that tests move; nothing runs in the background."""

from dataclasses import dataclass

import pytest

from modelplane.admin.v1.admin_pb2 import Actor, Page
from modelplane.tenants.v1 import tenants_pb2 as pb
from services.storage import Database
from services.tenants.service import Tenants
from services.tenants.settings import TenantsSettings
from services.tenants.store import TenantsStore
from services.tenants.tiers import NANODOLLARS

ACTOR = Actor(key_id="key_1", owner_id="user-1")


@dataclass
class Clock:
    """Seconds of the epoch, as tests say."""

    now_s: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tenants(database: Database, clock: Clock) -> Tenants:
    return Tenants(TenantsStore(database), TenantsSettings(), clock=clock)


@pytest.fixture
async def mine(tenants: Tenants) -> pb.CreateOrganizationResponse:
    return await tenants.create_organization(pb.CreateOrganizationRequest(name="Mine", actor=ACTOR))


@pytest.fixture
async def other(tenants: Tenants) -> pb.CreateOrganizationResponse:
    return await tenants.create_organization(pb.CreateOrganizationRequest(name="Other", actor=ACTOR))


async def pay(tenants: Tenants, organization_id: str, payment_id: str, dollars: int) -> pb.Organization:
    request = pb.RecordPaymentRequest(
        organization_id=organization_id,
        payment_id=payment_id,
        amount_nanodollars=dollars * NANODOLLARS,
        actor=ACTOR,
    )
    return (await tenants.record_payment(request)).organization


async def events(tenants: Tenants, organization_id: str, **filters: object) -> list[pb.AuditEvent]:
    """The oldest first."""
    page = Page(limit=100, ascending=True)
    request = pb.ListAuditEventsRequest(organization_id=organization_id, page=page, **filters)  # type: ignore[arg-type]
    return list((await tenants.list_audit_events(request)).events)
