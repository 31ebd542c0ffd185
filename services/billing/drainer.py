"""Moves usage from the spool to the ledger, in batches, for as long as the process lives.

Kept true: a record leaves the spool only after the transaction that holds it is committed; one that the database
will never take is kept aside instead of holding up the others; whatever else goes wrong is tried again.
"""

import asyncio
import time
from typing import NamedTuple

from google.protobuf.message import DecodeError
from prometheus_client import Counter

from modelplane.usage.v1 import usage_pb2
from services import telemetry
from services.billing import frames
from services.billing.settings import BillingSettings
from services.billing.spool import TORN, Segment, Spool
from services.billing.store import RecordRefusedError, UsageStore
from services.faults import Unavailable

log = telemetry.logger(__name__)

DRAINED = Counter("modelplane_usage_drained_records", "Usage records that left the spool for the ledger.")
DUPLICATES = Counter("modelplane_usage_duplicate_records", "Of the drained ones, those that the ledger had already.")

FIRST_RETRY_S = 0.1
ADOPT_S = 10.0


class _Entry(NamedTuple):
    """A record with its place in the segment."""

    offset: int
    payload: bytes
    usage: usage_pb2.Usage


class Drainer:
    """Owns the reading side of a spool."""

    def __init__(self, spool: Spool, store: UsageStore, settings: BillingSettings) -> None:
        self._spool = spool
        self._store = store
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
        """Looks for the files of processes that die beside this one, for ever."""
        while True:
            await asyncio.sleep(ADOPT_S)
            try:
                await self._spool.adopt()
            except OSError as error:
                log.warning("the spool's folder cannot be read", error=error)

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
        start = segment.drained
        batch: list[_Entry] = []
        position = start
        for item in frames.decode(data):
            position, offset = start + item.end, position
            if isinstance(item, frames.Damage):
                self._report(segment, offset, data[item.start : item.end], item.torn)
            elif (usage := _usage(item.payload)) is None:
                self._spool.set_aside(segment, offset, item.payload, "not a usage record")
            else:
                batch.append(_Entry(offset, item.payload, usage))
            if len(batch) == self._settings.drain_records:
                await self._add(segment, batch)
                self._spool.advance(segment, position, len(batch))
                batch = []
        await self._add(segment, batch)
        self._spool.advance(segment, position, len(batch))

    def _report(self, segment: Segment, offset: int, data: bytes, torn: bool) -> None:
        if torn:
            TORN.inc(len(data))
            log.warning("dropped a record that a crash cut off", path=segment.path, bytes=len(data))
        else:
            self._spool.set_aside(segment, offset, data, "damaged")

    async def _add(self, segment: Segment, batch: list[_Entry]) -> None:
        if not batch:
            return
        try:
            added = await self._store.add([entry.usage for entry in batch])
        except RecordRefusedError as error:
            if len(batch) == 1:
                self._spool.set_aside(segment, batch[0].offset, batch[0].payload, str(error))
                return
            half = len(batch) // 2
            await self._add(segment, batch[:half])
            await self._add(segment, batch[half:])
            return
        DRAINED.inc(len(batch))
        DUPLICATES.inc(len(batch) - added)


def _usage(payload: bytes) -> usage_pb2.Usage | None:
    try:
        usage = usage_pb2.Usage.FromString(payload)
    except DecodeError:
        return None
    return usage if usage.request_id else None
