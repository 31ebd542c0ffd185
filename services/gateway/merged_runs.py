"""Several runs that one answer is made of, read through one outlet as if they were one.

Kept true: the outlet ends with one usage, the sum of all; the first run that fails ends them all, and its fault is
the answer's; what waits for a slow client is bounded.
"""

import asyncio
from collections.abc import Sequence

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta
from modelplane.ratelimit.v1.ratelimit_pb2 import Reservation
from modelplane.usage.v1.usage_pb2 import Usage
from services.faults import Fault, Internal
from services.gateway.runs import Outlet, Run, slow_client


class MergedRuns:
    """At least one run, all with the same number of choices: the choices of a later one have the higher indices.

    With a `limit` at most so many deltas wait for the reader.
    """

    def __init__(self, runs: Sequence[Run], limit: int | None) -> None:
        self.outlet = Outlet(limit)
        self._runs = runs
        self._usage = Usage()
        self._task = asyncio.get_running_loop().create_task(self._merge())

    @property
    def reservation(self) -> Reservation | None:
        """The first run's, once it was admitted."""
        return self._runs[0].reservation

    def abort(self, reason: Fault) -> None:
        """Ends all runs as soon as can be."""
        for run in self._runs:
            run.abort(reason)

    async def _merge(self) -> None:
        fault: Fault | None = Internal("internal", "The server had an error while processing your request.")
        try:
            async with asyncio.TaskGroup() as group:
                for position, run in enumerate(self._runs):
                    group.create_task(self._forward(run, position * run.work.n))
            self._put(Delta(usage=self._usage))
            fault = None
        except* Fault as failed:
            fault = next(error for error in failed.exceptions if isinstance(error, Fault))
        finally:
            if fault is not None:
                self.abort(fault)
            self.outlet.end(fault)

    async def _forward(self, run: Run, first_index: int) -> None:
        take = run.outlet.take if run.work.stream else run.outlet.take_all
        while True:
            for delta in await take():
                if delta.HasField("usage"):
                    self._add(delta.usage)
                    return
                delta.index += first_index
                self._put(delta)

    def _put(self, delta: Delta) -> None:
        if not self.outlet.put(delta):
            raise slow_client()

    def _add(self, usage: Usage) -> None:
        self._usage.input_tokens += usage.input_tokens
        self._usage.cached_input_tokens += usage.cached_input_tokens
        self._usage.output_tokens += usage.output_tokens
        self._usage.reasoning_tokens += usage.reasoning_tokens
