"""One run of a model: what was asked, what came back so far, and the outlet through which an endpoint reads it.

The session hands every delta straight to the run, which counts it and passes it on, so a delta costs one
dictionary lookup and no task switch of its own; the task that conducts the run wakes only at its end. The outlet
is bounded: a client that does not keep up gets its own request aborted and holds up nobody else's.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence

from modelplane.auth.v1.auth_pb2 import Principal
from modelplane.chat_inference.v1.chat_inference_pb2 import FINISH_REASON_ABORT, FINISH_REASON_LENGTH, Delta
from modelplane.ratelimit.v1.ratelimit_pb2 import Reservation
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, Usage
from services.faults import Cancelled, Fault, Unavailable
from services.gateway.images.loader import LoadedImage
from services.gateway.work import Work


class Outlet:
    """A queue of deltas from a run to the one endpoint that reads it, with an end or a fault after them.

    With a `limit` the deltas are for a stream and at most so many wait; without one they are collected.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._deltas: list[Delta] = []
        self._ended = False
        self._fault: Fault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._nudged = False
        # True once the reader was given something: from then on it is too late to start over.
        self.taken = False

    def put(self, delta: Delta) -> bool:
        """Passes a delta on. False: the reader is too slow, the delta was dropped."""
        if self._limit is not None:
            if len(self._deltas) >= self._limit:
                return False
            if self._waiter is not None:
                self._wake()
        self._deltas.append(delta)
        return True

    def end(self, fault: Fault | None = None) -> None:
        """No more deltas; `fault` says why when that is not the model's own end. Only the first call counts."""
        if not self._ended:
            self._ended = True
            self._fault = fault
            self._wake()

    def restart(self) -> bool:
        """Forgets what was put. False when it is too late."""
        if self.taken:
            return False
        self._deltas.clear()
        return True

    def nudge(self) -> None:
        """Has a `take` that waits give [], so that its caller can look around."""
        if not self._deltas:
            self._nudged = True
            self._wake()

    async def take(self) -> list[Delta]:
        """Waits for a delta and gives all that are there, [] after the last one or a nudge; raises the run's fault
        instead."""
        while not self._deltas and not self._ended and not self._nudged:
            await self._wait()
        self._nudged = False
        return self._give()

    async def take_all(self) -> list[Delta]:
        """Waits for the end and gives everything; raises the run's fault instead."""
        while not self._ended:
            await self._wait()
        if self._fault is not None:
            raise self._fault
        return self._give()

    def _give(self) -> list[Delta]:
        if not self._deltas and self._fault is not None:
            raise self._fault
        if self._deltas:
            self.taken = True
        deltas, self._deltas = self._deltas, []
        return deltas

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Run:
    """The state of one run. `Pipeline` conducts it, a session feeds it, an endpoint reads its outlet."""

    def __init__(self, request_id: str, operation: str, principal: Principal, work: Work, outlet: Outlet) -> None:
        self.request_id = request_id
        self.operation = operation
        self.principal = principal
        self.work = work
        self.outlet = outlet
        self.started_at_ms = time.time_ns() // 1_000_000
        self.task: asyncio.Task[None] | None = None
        # Known once the prompt was rendered: the resolved model and the prompt's length.
        self.model = ""
        self.input_tokens = 0
        # Of them, those that stand for images.
        self.input_image_tokens = 0
        self.images: Sequence[LoadedImage] = ()
        # How the model writes calls, where it was given tools.
        self.tool_format = ""
        # The class that serves it, known once it was placed.
        self.service_tier = ""
        # False again when the limiter refused; what it holds must be settled.
        self.reserved = False
        # True once money was asked for: it is given back, or recorded as spent.
        self.held = False
        # The output tokens that are paid for by what is held; None when nothing more will have to be held.
        self.held_output_tokens: int | None = None
        # The output tokens that the limiter has taken.
        self.reserved_output_tokens = 0
        # Has the engine end the run; None while there is no engine that works on it.
        self.stop: Callable[[], None] | None = None
        # Known once the request was admitted.
        self.reservation: Reservation | None = None
        # Of the latest attempt only: what a lost replica generated in vain is not billed.
        self.output_tokens = 0
        # Tells limiter and billing that the run outgrows what they took; there is at most one at a time.
        self.growth: asyncio.Task[None] | None = None
        # Output tokens at the last checkpoint; -1 before the first.
        self.checkpointed_tokens = -1
        # A point of time.perf_counter(), 0 before a stream's first delta.
        self.first_delta_at = 0.0
        # The engine's account of the latest attempt; None when it was lost without one.
        self.usage: Usage | None = None
        self._abort_reason: Fault | None = None
        self._interrupt: Callable[[], None] | None = None
        self._attempt: asyncio.Future[Fault | None] | None = None
        # Output tokens after which `_outgrown` is called: never, until `watch` says otherwise.
        self._covered_tokens = sys.maxsize
        self._outgrown: Callable[[Run], None] | None = None
        # Called at the first delta of every attempt: from then on there is something to pay for.
        self.on_first_delta: Callable[[Run], None] | None = None
        # Choices that have ended, and whether the others were ended for want of money.
        self._finished: set[int] = set()
        self._cut = False
        # The end of the answer.
        self._last: Delta | None = None
        self.abortable = Abortable(self)

    def begin(self) -> asyncio.Future[Fault | None]:
        """A new attempt at a replica. The future gives what ended it, None for the model's own end."""
        self.output_tokens = 0
        self._finished.clear()
        self.usage = None
        self._attempt = asyncio.get_running_loop().create_future()
        return self._attempt

    def watch(self, output_tokens: int, outgrown: "Callable[[Run], None]") -> None:
        """Has `outgrown` called, once, when the output exceeds so many tokens."""
        self._covered_tokens = output_tokens
        self._outgrown = outgrown

    @property
    def whole(self) -> bool:
        """Nothing of the answer is shown, or need be known here, before its end."""
        return not self.work.stream and self.held_output_tokens is None

    def deliver(self, delta: Delta) -> None:
        """Takes a delta from the session."""
        # Of an answer in one piece there is no first token to be seen.
        if not self.first_delta_at and self.work.stream:
            self.first_delta_at = time.perf_counter()
        last = delta.HasField("usage")
        if not self.output_tokens and self.on_first_delta and not self.whole and not last:
            self.on_first_delta(self)
        self.output_tokens += delta.tokens
        if self.output_tokens > self._covered_tokens:
            self._outgrow()
        if last and self._cut:
            self._complete(delta)
        elif delta.finish_reason and delta.finish_reason != FINISH_REASON_ABORT:
            self._finished.add(delta.index)
        fault = self._abort_reason or (_engine_fault(delta) if last else None)
        if last:
            self.usage = delta.usage
            # What says that the answer is whole, and what it used, is given out when that is recorded.
            self._last = delta if fault is None else None
            self.end_attempt(fault)
        elif fault is None and not self.outlet.put(delta):
            fault = slow_client()
            self.abort(fault)

    def finish(self, fault: Fault | None) -> None:
        """Gives out the end of the answer, which is recorded; or `fault`, which kept it from that."""
        if fault is None and self._last is not None and not self.outlet.put(self._last):
            fault = slow_client()
        self.outlet.end(fault)

    def cut(self) -> None:
        """The engine was told to stop here: what there is by then is the answer, ended by its length."""
        self._cut = True

    def _complete(self, last: Delta) -> None:
        """Makes the end of an aborted generation the end of an answer that is cut short."""
        if last.HasField("fault") or last.usage.outcome != OUTCOME_ABORTED:
            return
        for index in set(range(self.work.n)) - self._finished:
            self.outlet.put(Delta(request_id=self.request_id, index=index, finish_reason=FINISH_REASON_LENGTH))
        last.ClearField("finish_reason")
        last.usage.outcome = OUTCOME_COMPLETED

    def _outgrow(self) -> None:
        self._covered_tokens = sys.maxsize
        if self._outgrown is not None:
            self._outgrown(self)

    def lost(self) -> None:
        """The session to the replica ended before the request did."""
        self.end_attempt(_replica_lost())

    def end_attempt(self, fault: Fault | None = None) -> None:
        """Ends the attempt if it has not ended; that the run was aborted outweighs what the engine says."""
        if self._attempt is not None and not self._attempt.done():
            self._attempt.set_result(self._abort_reason or fault)

    def abort(self, reason: Fault) -> None:
        """Ends the run as soon as can be, whatever it is doing. What was generated until then is billed."""
        if self._abort_reason is None:
            self._abort_reason = reason
            if self._interrupt is not None:
                self._interrupt()

    @property
    def aborted(self) -> bool:
        return self._abort_reason is not None

    @property
    def aborted_by_client(self) -> bool:
        return isinstance(self._abort_reason, Cancelled)

    def on_abort(self, interrupt: Callable[[], None] | None) -> None:
        """From now on an abort calls `interrupt`; at once if there was one already."""
        self._interrupt = interrupt
        if interrupt is not None and self._abort_reason is not None:
            interrupt()

    def raise_if_aborted(self) -> None:
        if self._abort_reason is not None:
            raise self._abort_reason


class Abortable:
    """`with run.abortable:` — within the block an abort ends whatever the run's task awaits, and raises the reason."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        self._run.raise_if_aborted()
        self._run.on_abort(self._interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        run = self._run
        run.on_abort(None)
        # Only an abort of ours becomes a fault; a task that is cancelled from outside stays cancelled.
        if kind is asyncio.CancelledError and run.aborted and run.task and run.task.uncancel() == 0:
            run.raise_if_aborted()

    def _interrupt(self) -> None:
        if self._run.task:
            self._run.task.cancel()


def _engine_fault(last: Delta) -> Fault | None:
    """Why the last delta is not the model's own end."""
    if last.HasField("fault"):
        return Fault.from_proto(last.fault)
    # Aborted, but not by us: the replica is stopping.
    return None if last.usage.outcome == OUTCOME_COMPLETED else _replica_lost()


def _replica_lost() -> Fault:
    return Unavailable("replica_lost", "The model's server was lost while it worked on your request. Try again.")


def slow_client() -> Fault:
    return Cancelled("slow_client", "The stream was not read fast enough, so the request was ended.")
