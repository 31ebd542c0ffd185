"""A gateway's session: many requests over one stream, and what becomes of them when the stream breaks.

Kept true: a request that is started here ends here; when the peer is gone, the engine is told at once, and what the
peer can no longer settle is billed from here: what was still running, and what ended so shortly before that its
last delta may have been lost on the way.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, SessionRequest
from services import telemetry
from services.chat_inference.outbox import Outbox
from services.chat_inference.reporting import UsageReporter
from services.chat_inference.runs import Run, Runner
from services.chat_inference.settings import Settings
from services.faults import Fault

log = telemetry.logger(__name__)


class Session:
    """One peer's requests. `outbox` is what its writer takes from."""

    def __init__(self, runner: Runner, reporter: UsageReporter, settings: Settings) -> None:
        self._runner = runner
        self._reporter = reporter
        self._recent_s = settings.usage_grace_ms / 1000
        self._running: dict[str, Run] = {}
        self._ended: deque[Run] = deque()
        self._leaving: asyncio.Task[None] | None = None
        self.outbox = Outbox(settings.outbox_bytes, on_full=self.leave)

    def start(self, request: GenerateRequest) -> None:
        """Starts a request; its deltas, or its refusal, go into the outbox."""
        run = self._runner.start(request, self.outbox)
        if run and run.task:
            self._running[request.request_id] = run
            run.task.add_done_callback(lambda _: self._end(run))

    async def read(self, requests: AsyncIterator[SessionRequest]) -> None:
        """Does what the peer asks until it has no more to ask; then ends what it started and closes the outbox."""
        try:
            async for asked in requests:
                for request in asked.starts:
                    self.start(request)
                for request_id in asked.aborts:
                    if run := self._running.get(request_id):
                        await self._runner.abort(run)
        except Fault as fault:
            log.info("a session was lost", reason=fault.reason)
        await self.end()

    async def end(self) -> None:
        """Aborts what runs, waits until it has ended, and closes the outbox behind it."""
        running = list(self._running.values())
        await asyncio.gather(*(self._runner.abort(run) for run in running), return_exceptions=True)
        await asyncio.gather(*(run.task for run in running if run.task), return_exceptions=True)
        self.outbox.close()

    def leave(self) -> None:
        """The peer is gone: ends what runs at once, and bills what the peer may not have settled."""
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def left(self) -> None:
        """Returns when a `leave` has handed its usage over."""
        if self._leaving:
            await self._leaving

    async def _leave(self) -> None:
        running = list(self._running.values())
        await self.end()
        usages = [
            run.usage for run in (*self._ended, *running) if run.usage and run.usage.output_tokens and run.began_at_peer
        ]
        if running or usages:
            log.warning("a peer left its session", aborted=len(running), to_bill=len(usages))
        self._reporter.report(usages)

    def _end(self, run: Run) -> None:
        del self._running[run.request.request_id]
        if self._leaving:
            return
        horizon = time.monotonic() - self._recent_s
        while self._ended and self._ended[0].ended_at < horizon:
            self._ended.popleft()
        self._ended.append(run)
