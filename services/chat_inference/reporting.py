"""Hands to billing the usage that a lost gateway can no longer settle.

Kept true: a record is sent until billing has taken it or the attempts are used up, and then it is in the log;
billing counts a request id once, so sending what the gateway did settle after all changes nothing.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from modelplane.billing.v1.billing_api import BillingService
from modelplane.billing.v1.billing_pb2 import RecordRequest
from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.context import call
from services.faults import Fault

log = telemetry.logger(__name__)

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_CALL_TIMEOUT_S = 5.0


class UsageReporter:
    """Sends usage to billing after `grace_s` seconds, in at most `attempts` attempts."""

    def __init__(self, billing: BillingService, grace_s: float, attempts: int) -> None:
        self._billing = billing
        self._grace_s = grace_s
        self._attempts = attempts
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def report(self, usages: Sequence[Usage]) -> None:
        """Takes charge of the records; returns at once."""
        if usages:
            task = asyncio.create_task(self._report(usages))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Sends what is waiting now rather than after its grace; billing gets one attempt for each."""
        self._closing.set()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _report(self, usages: Sequence[Usage]) -> None:
        await self._pause(self._grace_s)
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, self._attempts + 1):
            try:
                # Not the deadline of the call that was lost.
                with call(usages[0].request_id, _CALL_TIMEOUT_S):
                    await self._billing.record(RecordRequest(usages=usages))
            except Fault as fault:
                log.warning("billing did not take usage", attempt=attempt, reason=fault.reason)
            else:
                log.info("usage of a lost session was recorded", records=len(usages))
                return
            if self._closing.is_set():
                break
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        for usage in usages:
            log.error(
                "usage could not be recorded",
                usage_request_id=usage.request_id,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
            )

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
