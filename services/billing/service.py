"""The billing service: nothing is served that could not be paid or could not be recorded; a record is safe when
`Record` returns, and in the ledger soon after.

No caller waits for the database but one whose purse is empty: money was leased before it is asked for, and records go
to the spool, from where the drainer takes them. So serving goes on without a database for as long as purses last and
the spool has room, and readiness asks the spool alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from modelplane.billing.v1 import billing_pb2
from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.billing.drainer import Drainer
from services.billing.frames import MAX_PAYLOAD_BYTES
from services.billing.funds import Funds
from services.billing.prices import Prices
from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from services.billing.store import FundsStore, PricesStore, UsageStore
from services.billing.tasks import end
from services.compose import Context
from services.faults import InvalidRequest, NotFound, Unavailable
from services.storage import Database

log = telemetry.logger(__name__)


class Billing:
    """BillingService over a spool, purses and a ledger."""

    def __init__(self, spool: Spool, funds: Funds, store: UsageStore, drainer: Drainer) -> None:
        self._spool = spool
        self._funds = funds
        self._store = store
        self._drainer = drainer

    async def hold(self, request: billing_pb2.HoldRequest, /) -> billing_pb2.HoldResponse:
        """Faults: invalid_value, model_not_priced, insufficient_quota, spool_full, spool_unwritable,
        database_unavailable."""
        self._spool.refuse_if_full()
        return billing_pb2.HoldResponse(output_tokens=await self._funds.hold(request))

    async def extend(self, request: billing_pb2.ExtendRequest, /) -> billing_pb2.ExtendResponse:
        """Faults: insufficient_quota, database_unavailable."""
        return billing_pb2.ExtendResponse(output_tokens=await self._funds.extend(request))

    async def release(self, request: billing_pb2.ReleaseRequest, /) -> billing_pb2.ReleaseResponse:
        self._funds.release(request.request_id)
        self._spool.forget([request.request_id])
        return billing_pb2.ReleaseResponse()

    async def checkpoint(self, request: billing_pb2.CheckpointRequest, /) -> billing_pb2.CheckpointResponse:
        """Faults: invalid_value, spool_full, spool_unwritable."""
        usages = request.usages[:]
        if payloads := _payloads(usages):
            ids = [usage.request_id for usage in usages]
            self._spool.checkpoint(list(zip(ids, payloads, strict=True)))
        return billing_pb2.CheckpointResponse()

    async def record(self, request: billing_pb2.RecordRequest, /) -> billing_pb2.RecordResponse:
        """Faults: invalid_value, spool_full, spool_unwritable."""
        # Once: every look at a repeated message makes its parts anew, and a slice does so fastest.
        usages = request.usages[:]
        if payloads := _payloads(usages):
            self._spool.append(payloads)
            for usage in usages:
                self._spool.recorded(usage.request_id)
                self._funds.settle(usage)
        return billing_pb2.RecordResponse()

    async def get_usage(self, request: billing_pb2.GetUsageRequest, /) -> billing_pb2.GetUsageResponse:
        """Sees what this process has recorded. Faults: usage_not_found, database_unavailable."""
        found = await self._store.get(request.organization_id, request.request_id)
        if found is None:
            await self._drainer.drain()
            found = await self._store.get(request.organization_id, request.request_id)
        if found is None:
            raise NotFound("usage_not_found", f"There is no usage record of the request '{request.request_id}'.")
        usage, nanodollars = found
        return billing_pb2.GetUsageResponse(usage=usage, nanodollars=nanodollars)

    async def ping(self) -> None:
        """Faults: spool_full, spool_unwritable."""
        await self._spool.check()

    async def drain(self) -> None:
        """Brings what was recorded into the ledger; records are still taken, for whoever is yet to finish."""
        try:
            await self._drainer.drain()
        except Unavailable as fault:
            log.warning("usage stays in the spool", error=fault)


def _payloads(usages: Sequence[Usage]) -> list[bytes]:
    """Faults: invalid_value."""
    payloads = []
    for usage in usages:
        payload = usage.SerializeToString()
        if not usage.request_id or len(payload) > MAX_PAYLOAD_BYTES:
            raise InvalidRequest(
                "invalid_value", f"A usage record needs a request id and at most {MAX_PAYLOAD_BYTES} bytes."
            )
        payloads.append(payload)
    return payloads


@asynccontextmanager
async def serving(folder: Path, database: Database, settings: BillingSettings) -> AsyncIterator[Billing]:
    """Billing with its spool in `folder`. Leaving the block brings what it can into the ledger. Raises OSError."""
    spool = Spool(folder, settings)
    await spool.open()
    prices = Prices(PricesStore(database))
    await prices.start()
    funds = Funds(FundsStore(database, uuid4().hex, settings.lease_s), prices, settings)
    store = UsageStore(database, prices.refresh)
    drainer = Drainer(spool, store, funds, settings)
    tasks = [
        asyncio.create_task(drainer.run(), name="billing drainer"),
        asyncio.create_task(drainer.keep_adopting(), name="billing adopter"),
        asyncio.create_task(spool.keep_synced(), name="billing syncer"),
        asyncio.create_task(funds.keep_informed(), name="billing listener"),
        asyncio.create_task(funds.keep_renewing(), name="billing renewer"),
    ]
    try:
        yield Billing(spool, funds, store, drainer)
    finally:
        await end(tasks)
        try:
            async with asyncio.timeout(settings.close_ms / 1000):
                try:
                    await drainer.drain()
                finally:
                    await funds.close()
        except (Unavailable, TimeoutError, OSError) as error:
            log.warning("usage stays in the spool for the next start", error=error)
        await prices.close()
        await spool.close()


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Billing]:
    folder = context.platform.home / "spool"
    async with serving(folder, context.database(), context.settings(BillingSettings)) as billing:
        yield billing
