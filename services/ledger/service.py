"""Keeps the money: what models cost, what organisations have paid and owe, their invoices, and the proof of it all.

Keeps true: whatever changes what an organisation has or owes is booked as postings in the same transaction; nothing
that is told twice counts twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from modelplane.tenants.v1.tenants_api import TenantsService
from services import telemetry
from services.catalog import Catalog
from services.compose import Context
from services.faults import Fault
from services.ledger.audit import Auditor
from services.ledger.credits import Credits
from services.ledger.invoices import Invoices
from services.ledger.payments import Payments
from services.ledger.postings import Postings
from services.ledger.prices import Prices, configured
from services.ledger.settings import LedgerSettings
from services.ledger.store import LedgerStore
from services.ledger.store.audit import AuditStore
from services.pricing import defaults
from services.storage import Database

log = telemetry.logger(__name__)

# Rest before configured prices are tried again, when the database was away.
PRICES_RETRY_S = 5.0


class Ledger:
    """The contract LedgerService, a part per noun. `clock` gives seconds of the epoch."""

    def __init__(
        self,
        database: Database,
        tenants: TenantsService,
        settings: LedgerSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        store = LedgerStore(database)
        self.ping = store.ping
        self._interval_s = settings.sweep_interval_s

        prices = Prices(store, clock)
        self.list_prices = prices.list_prices
        self.set_price = prices.set_price
        self.sync_prices = prices.sync

        credits = Credits(store, clock)  # noqa: A001 -- the builtin ends an interactive session
        self.get_balance = credits.get_balance
        self.set_terms = credits.set_terms
        self.grant_credits = credits.grant_credits
        self.expire = credits.expire

        payments = Payments(store, tenants, clock)
        self.record_payment = payments.record_payment
        self.refund_usage = payments.refund_usage

        self.list_postings = Postings(store).list_postings

        invoices = Invoices(store, settings, clock)
        self.list_invoices = invoices.list_invoices
        self.get_invoice = invoices.get_invoice
        self.issue = invoices.issue

        self.audit = Auditor(AuditStore(database)).audit

    async def keep_sweeping(self) -> None:
        """Lets credits expire and issues invoices, again and again."""
        while True:
            await _attempt(self.expire)
            await _attempt(self.issue)
            await asyncio.sleep(self._interval_s)

    async def keep_prices(self, catalog: Catalog, changed: asyncio.Event) -> None:
        """Adds the prices of the file of models when that has changed, again until the database has them."""
        while True:
            await changed.wait()
            changed.clear()
            try:
                await self.sync_prices(defaults.load(), configured(catalog, strict=False))
            except Exception as error:  # the database may be away
                log.error("configured prices were not added", exc_info=None if isinstance(error, Fault) else error)
                await asyncio.sleep(PRICES_RETRY_S)
                changed.set()


async def _attempt(step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except Fault as fault:
        log.warning("a sweep of the ledger failed", step=step.__name__, reason=fault.reason)
    except Exception as error:  # the next round may go better
        log.error("a sweep of the ledger failed", step=step.__name__, exc_info=error)


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Ledger]:
    catalog, settings = context.catalog, context.settings(LedgerSettings)
    prices = configured(catalog, strict=not catalog.fluid)
    ledger = Ledger(context.database(), context.need(TenantsService), settings)
    await ledger.sync_prices(defaults.load(), prices)
    changed = asyncio.Event()
    unsubscribe = catalog.subscribe(changed.set)
    tasks = [
        asyncio.create_task(ledger.keep_sweeping(), name="ledger sweep"),
        asyncio.create_task(ledger.keep_prices(catalog, changed), name="ledger prices"),
    ]
    try:
        yield ledger
    finally:
        unsubscribe()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
