"""The billing service: a record is safe when `Record` returns, and in the ledger soon after.

No caller waits for the database: records go to the spool, and the drainer takes them from there. So serving goes
on without a database for as long as the spool has room, and readiness asks the spool alone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from modelplane.billing.v1 import billing_pb2
from services import telemetry
from services.billing.drainer import Drainer
from services.billing.frames import MAX_PAYLOAD_BYTES
from services.billing.settings import BillingSettings
from services.billing.spool import Spool
from services.billing.store import UsageStore
from services.compose import Context
from services.faults import InvalidRequest, NotFound, Unavailable

log = telemetry.logger(__name__)


class Billing:
    """BillingService over a spool and a ledger."""

    def __init__(self, spool: Spool, store: UsageStore, drainer: Drainer) -> None:
        self._spool = spool
        self._store = store
        self._drainer = drainer

    async def record(self, request: billing_pb2.RecordRequest, /) -> billing_pb2.RecordResponse:
        """Faults: invalid_value, spool_full, spool_unwritable."""
        payloads = []
        for usage in request.usages:
            payload = usage.SerializeToString()
            if not usage.request_id or len(payload) > MAX_PAYLOAD_BYTES:
                raise InvalidRequest(
                    "invalid_value", f"A usage record needs a request id and at most {MAX_PAYLOAD_BYTES} bytes."
                )
            payloads.append(payload)
        if payloads:
            await self._spool.append(payloads)
        return billing_pb2.RecordResponse()

    async def get_usage(self, request: billing_pb2.GetUsageRequest, /) -> billing_pb2.GetUsageResponse:
        """Sees what this process has recorded. Faults: usage_not_found, database_unavailable."""
        usage = await self._store.get(request.organization_id, request.request_id)
        if usage is None:
            await self._drainer.drain()
            usage = await self._store.get(request.organization_id, request.request_id)
        if usage is None:
            raise NotFound("usage_not_found", f"There is no usage record of the request '{request.request_id}'.")
        return billing_pb2.GetUsageResponse(usage=usage)

    async def ping(self) -> None:
        """Faults: spool_full, spool_unwritable."""
        await self._spool.check()

    async def drain(self) -> None:
        """Brings what was recorded into the ledger; records are still taken, for whoever is yet to finish."""
        try:
            await self._drainer.drain()
        except Unavailable as fault:
            log.warning("usage stays in the spool", error=fault)


@asynccontextmanager
async def serving(folder: Path, store: UsageStore, settings: BillingSettings) -> AsyncIterator[Billing]:
    """Billing with its spool in `folder`. Leaving the block brings what it can into the ledger. Raises OSError."""
    spool = Spool(folder, settings)
    await spool.open()
    drainer = Drainer(spool, store, settings)
    tasks = [
        asyncio.create_task(drainer.run(), name="billing drainer"),
        asyncio.create_task(drainer.keep_adopting(), name="billing adopter"),
        asyncio.create_task(spool.keep_synced(), name="billing syncer"),
    ]
    try:
        yield Billing(spool, store, drainer)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(settings.close_ms / 1000):
                await drainer.drain()
        except (Unavailable, TimeoutError, OSError) as error:
            log.warning("usage stays in the spool for the next start", error=error)
        await spool.close()


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Billing]:
    store = UsageStore(context.database())
    async with serving(context.platform.home / "spool", store, context.settings(BillingSettings)) as billing:
        yield billing
