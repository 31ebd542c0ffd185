"""Keeps organisations and projects: what they are, what they may use and spend, and what was changed in them.

Keeps true: what belongs to another organisation is not there; every change is in the audit log or did not happen.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from modelplane.tenants.v1 import tenants_pb2 as pb
from services import asked
from services.compose import Context
from services.tenants.limits import Limits
from services.tenants.organizations import Organizations
from services.tenants.payments import Payments
from services.tenants.projects import Projects
from services.tenants.settings import TenantsSettings
from services.tenants.spend import Spend
from services.tenants.store import TenantsStore


class Tenants:
    """The contract TenantsService, a part per noun. `clock` gives seconds of the epoch."""

    def __init__(
        self, store: TenantsStore, settings: TenantsSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store

        organizations = Organizations(store)
        self.bootstrap = organizations.bootstrap
        self.create_organization = organizations.create_organization
        self.get_organization = organizations.get_organization
        self.list_organizations = organizations.list_organizations

        payments = Payments(store, settings, clock=clock)
        self.pin_tier = payments.pin_tier
        self.record_payment = payments.record_payment
        self.graduate = payments.graduate
        self.keep_graduating = payments.keep_graduating

        projects = Projects(store)
        self.create_project = projects.create_project
        self.get_project = projects.get_project
        self.list_projects = projects.list_projects
        self.update_project = projects.update_project
        self.archive_project = projects.archive_project
        self.set_model_policy = projects.set_model_policy

        limits = Limits(store)
        self.get_limits = limits.get_limits
        self.set_limits = limits.set_limits

        spend = Spend(store)
        self.get_spend_limit = spend.get_spend_limit
        self.set_spend_limit = spend.set_spend_limit
        self.delete_spend_limit = spend.delete_spend_limit
        self.put_spend_alert = spend.put_spend_alert
        self.get_spend_alert = spend.get_spend_alert
        self.list_spend_alerts = spend.list_spend_alerts
        self.delete_spend_alert = spend.delete_spend_alert

    async def list_audit_events(self, request: pb.ListAuditEventsRequest, /) -> pb.ListAuditEventsResponse:
        asked.page(request.page)
        if asked.has_nul(request.organization_id):
            return pb.ListAuditEventsResponse()
        async with self._store.transaction() as records:
            events, has_more = await records.events.page(request)
        return pb.ListAuditEventsResponse(events=events, has_more=has_more)


@asynccontextmanager
async def serving(
    store: TenantsStore, settings: TenantsSettings, *, clock: Callable[[], float] = time.time
) -> AsyncIterator[Tenants]:
    """The service, which raises usage tiers as organisations grow older."""
    tenants = Tenants(store, settings, clock=clock)
    graduating = asyncio.create_task(tenants.keep_graduating(), name="tenants graduation")
    try:
        yield tenants
    finally:
        graduating.cancel()
        await asyncio.wait([graduating])


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Tenants]:
    async with serving(TenantsStore(context.database()), context.settings(TenantsSettings)) as tenants:
        yield tenants
