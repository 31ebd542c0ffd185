"""Tells billing what running streams have used so far, so that no crash makes them free.

From its first piece on a stream is known to billing, and every `interval_s` what it has used since; what a crash of
the gateway makes free of it is what came after the last telling. Nobody waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Set

from prometheus_client import Counter

from modelplane.billing.v1.billing_api import BillingService
from modelplane.billing.v1.billing_pb2 import CheckpointRequest
from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.faults import Fault
from services.gateway.runs import Run

log = telemetry.logger(__name__)

FAILED = Counter(
    "modelplane_checkpoints_failed", "Tellings of running streams to billing that failed; the next repeats them."
)


class Checkpoints:
    """Of the `runs` that are alive; `usage_of` gives what one has used."""

    def __init__(
        self, billing: BillingService, runs: Set[Run], usage_of: Callable[[Run], Usage], interval_s: float
    ) -> None:
        self._billing = billing
        self._runs = runs
        self._usage_of = usage_of
        self._interval_s = interval_s
        self._new: list[Run] = []
        self._ticking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def first(self, run: Run) -> None:
        """A run has its first piece. Those of one turn of the event loop are told together."""
        if not self._new:
            asyncio.get_running_loop().call_soon(self._tell_new)
        self._new.append(run)
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait((self._ticking,))
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _tell_new(self) -> None:
        new, self._new = self._new, []
        task = asyncio.get_running_loop().create_task(self._tell(new))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        """Ends when there is nothing left to tell of."""
        while True:
            await asyncio.sleep(self._interval_s)
            begun = [run for run in self._runs if run.checkpointed_tokens >= 0 and run.usage is None]
            if not begun:
                self._ticking = None
                return
            await self._tell(run for run in begun if run.output_tokens > run.checkpointed_tokens)

    async def _tell(self, runs: Iterable[Run]) -> None:
        usages = []
        for run in runs:
            # The record itself is on its way.
            if run.usage is None:
                run.checkpointed_tokens = run.output_tokens
                usages.append(self._usage_of(run))
        if not usages:
            return
        try:
            await self._billing.checkpoint(CheckpointRequest(usages=usages))
        except Fault as fault:
            FAILED.inc()
            log.warning("running streams not told to billing", reason=fault.reason, streams=len(usages))
