"""Moves usage from the spool into the ledger, in batches, for as long as the process lives.

Kept true: a record leaves the spool only after the transaction that holds it is committed; one that the database
will never take is kept aside instead of holding up the others; whatever else goes wrong is tried again.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.billing import frames
from services.billing.funds import Funds
from services.billing.settings import BillingSettings
from services.billing.spool import TORN, Segment, Spool
from services.billing.store import Batch, RecordRefusedError, UsageStore
from services.billing.tasks import end as end_tasks
from services.faults import Unavailable

log = telemetry.logger(__name__)

DRAINED = Counter("modelplane_usage_drained_records", "Usage records that left the spool for the ledger.")
DUPLICATES = Counter("modelplane_usage_duplicate_records", "Of the drained ones, those that the ledger had already.")
UNPRICED = Counter("modelplane_usage_unpriced_batches", "Batches with usage of a model that has no price.", ("model",))

# Records between two turns of the event loop: requests are served beside the draining.
PAUSE_RECORDS = 200
# The end of the year 9999, beyond which there are no months.
LAST_MS = 253_402_300_799_999
FIRST_RETRY_S = 0.1
FIRST_ADOPT_S = 1.0
ADOPT_S = 10.0


_Entry: TypeAlias = tuple[int, bytes]
"""A record's place in the segment, and its bytes."""


class _Batch(NamedTuple):
    """Records that are booked together."""

    entries: list[_Entry]
    end: int
    """Where the next one begins in the segment."""

    preparing: asyncio.Task[Batch]


class Drainer:
    """Owns the reading side of a spool. `funds` are told what this process's own requests have cost."""

    def __init__(self, spool: Spool, store: UsageStore, funds: Funds, settings: BillingSettings) -> None:
        self._spool = spool
        self._store = store
        self._funds = funds
        self._settings = settings
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Drains for ever, with longer and longer pauses while that fails."""
        retry_s = FIRST_RETRY_S
        while True:
            await self._spool.filled()
            await asyncio.sleep(self._settings.drain_interval_ms / 1000)
            try:
                await self.drain()
            except Exception as error:
                if retry_s == FIRST_RETRY_S:
                    # Losing the database is expected; anything else deserves its traceback.
                    known = isinstance(error, Unavailable)
                    log.warning("usage waits in the spool", error=error, exc_info=None if known else error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, self._settings.retry_ms / 1000)
            else:
                if retry_s > FIRST_RETRY_S:
                    log.info("usage is drained again")
                retry_s = FIRST_RETRY_S

    async def keep_adopting(self) -> None:
        """Looks for the files of processes that die beside this one, and for requests that nobody ends, for ever."""
        pause_s = FIRST_ADOPT_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = ADOPT_S
            try:
                await self._spool.adopt()
                for payload in self._spool.record_overdue(self._settings.hold_s):
                    self._funds.settle(Usage.FromString(payload))
            except OSError as error:
                log.warning("the spool's folder cannot be read", error=error)
            except Unavailable as fault:
                log.warning("requests that never ended wait to be recorded", error=fault)

    async def drain(self) -> None:
        """Moves everything that was in the spool when it was called. Faults: database_unavailable. Raises OSError."""
        async with self._one_at_a_time:
            try:
                for _ in range(self._spool.segments):
                    read_s = time.monotonic()
                    if (oldest := await self._spool.oldest()) is None:
                        break
                    segment, data, end = oldest
                    await self._drain_data(segment, data)
                    self._spool.finish(segment, end, read_s)
            finally:
                self._spool.observe()

    async def _drain_data(self, segment: Segment, data: bytes) -> None:
        """A batch is read and priced while the one before it is booked."""
        preparing: asyncio.Task[Batch] | None = None
        booking: asyncio.Task[None] | None = None
        try:
            async for entries, usages, end in self._batches(segment, data):
                preparing = asyncio.create_task(self._store.prepare(usages))
                if booking is not None:
                    await booking
                booking = asyncio.create_task(self._book(segment, _Batch(entries, end, preparing)))
            if booking is not None:
                await booking
        finally:
            await end_tasks([task for task in (preparing, booking) if task is not None])

    async def _batches(self, segment: Segment, data: bytes) -> AsyncIterator[tuple[list[_Entry], list[Usage], int]]:
        """Records in batches, and where each batch ends in the file. What is none is dealt with."""
        start = position = segment.drained
        batch: list[_Entry] = []
        usages: list[Usage] = []
        for number, item in enumerate(frames.decode(data)):
            if number % PAUSE_RECORDS == 0:
                await asyncio.sleep(0)
            position, offset = start + item.end, position
            if isinstance(item, frames.Damage):
                self._report(segment, offset, data[item.start : item.end], item.torn)
            elif (usage := _usage(item.payload)) is None:
                self._spool.set_aside(segment, offset, item.payload, "not a usage record")
            else:
                batch.append((offset, item.payload))
                usages.append(usage)
            if len(batch) == self._settings.drain_records:
                yield batch, usages, position
                batch, usages = [], []
        yield batch, usages, position

    async def _book(self, segment: Segment, batch: _Batch) -> None:
        if batch.entries:
            await self._add(segment, batch.entries, await batch.preparing)
        self._spool.advance(segment, batch.end, len(batch.entries))

    def _report(self, segment: Segment, offset: int, data: bytes, torn: bool) -> None:
        if torn:
            TORN.inc(len(data))
            log.warning("dropped a record that a crash cut off", path=segment.path, bytes=len(data))
        else:
            self._spool.set_aside(segment, offset, data, "damaged")

    async def _add(self, segment: Segment, entries: list[_Entry], batch: Batch) -> None:
        try:
            told = self._funds.drained if segment.is_own else None
            drained = await self._store.add(batch, told)
        except RecordRefusedError as error:
            if len(entries) == 1:
                self._spool.set_aside(segment, *entries[0], str(error))
                return
            half = len(entries) // 2
            for part in (entries[:half], entries[half:]):
                usages = [Usage.FromString(payload) for _, payload in part]
                await self._add(segment, part, await self._store.prepare(usages))
            return
        if segment.is_own:
            self._funds.committed(drained.costs)
        DRAINED.inc(len(entries))
        DUPLICATES.inc(len(entries) - drained.added)
        for model in drained.unpriced:
            UNPRICED.labels(model).inc()
            log.error("usage has no price; give the model one and run the audit", model=model)


def _usage(payload: bytes) -> Usage | None:
    try:
        usage = Usage.FromString(payload)
    except DecodeError:
        return None
    return usage if usage.request_id and 0 <= usage.finished_at_ms <= LAST_MS else None
