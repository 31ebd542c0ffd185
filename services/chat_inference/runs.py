"""The requests that this replica runs, each from its start to its one usage record.

Kept true: a request ends with exactly one last delta, whether it finished, was aborted, failed or was refused;
an id runs once at a time; no more run at once than the model's slots; an abort is not lost however early it comes.
"""

import asyncio
import time

from prometheus_client import Counter, Gauge, Histogram

from modelplane.chat_inference.v1.chat_inference_pb2 import FINISH_REASON_ABORT, Delta, GenerateRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED, Outcome, Usage
from services import telemetry
from services.catalog import ModelSpec
from services.chat_inference.engines.engine import Engine, Piece
from services.chat_inference.meter import Meter, Whole
from services.chat_inference.outbox import Outbox
from services.chat_inference.thinking import Splitter
from services.faults import Conflict, Fault, Internal, InvalidRequest, NotFound, Unavailable
from services.telemetry import GenAi

log = telemetry.logger(__name__)

GENERATED_TOKENS = Counter("modelplane_generated_tokens", "Tokens that this replica generated.", ["model"])
RUNNING_REQUESTS = Gauge("modelplane_running_requests", "Requests that this replica runs now.", ["model"])
FIRST_TOKEN = Histogram(
    "modelplane_engine_first_token_seconds",
    "From a request's arrival at the replica to its first token.",
    ["model"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
TOKEN_STEP = Histogram(
    "modelplane_engine_step_seconds",
    "Mean time from one token of a choice to its next, per request.",
    ["model"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)


class Run:
    """A request on its way through the engine."""

    __slots__ = (
        "_first_frame",
        "aborted",
        "ended_at",
        "meter",
        "outbox",
        "request",
        "splitter",
        "task",
        "usage",
        "whole",
    )

    def __init__(self, request: GenerateRequest, outbox: Outbox) -> None:
        self.request = request
        self.outbox = outbox
        self.meter = Meter(request, now_ms())
        self.whole = Whole() if request.whole else None
        self.splitter = Splitter(request.thinking) if request.HasField("thinking") else None
        self.aborted = False
        self.task: asyncio.Task[None] | None = None
        self.usage: Usage | None = None
        self.ended_at = 0.0
        self._first_frame: int | None = None

    def add(self, piece: Piece) -> None:
        """The way of every token."""
        self.meter.add(piece)
        if self.splitter:
            piece = self.splitter.answer(piece)
        if self.whole:
            self.whole.add(piece)
        else:
            self._send(piece)

    def end(self, delta: Delta) -> None:
        """Sends what was kept back and the last delta."""
        if self.whole:
            for piece in self.whole.pieces():
                self._send(piece)
        self.outbox.end(delta)

    def _send(self, piece: Piece) -> None:
        if self._first_frame is None:
            self._first_frame = self.outbox.frames_taken
        self.outbox.add(self.request.request_id, piece)

    @property
    def began_at_peer(self) -> bool:
        """True when the peer may have seen a part of it, so that nobody runs the request anew elsewhere."""
        return self._first_frame is not None and self.outbox.frames_taken > self._first_frame


class Runner:
    """Runs requests on the engine."""

    def __init__(self, engine: Engine, spec: ModelSpec) -> None:
        self._engine = engine
        self._spec = spec
        self._running: dict[str, Run] = {}
        self._draining = False
        self._ended_tokens = 0
        RUNNING_REQUESTS.labels(spec.name).set_function(lambda: len(self._running))
        self._generated = GENERATED_TOKENS.labels(spec.name)
        self._first_token = FIRST_TOKEN.labels(spec.name)
        self._token_step = TOKEN_STEP.labels(spec.name)

    def output_tokens(self) -> int:
        """All that was generated until now."""
        return self._ended_tokens + sum([run.meter.output_tokens for run in self._running.values()])

    def request_ids(self) -> list[str]:
        return list(self._running)

    def start(self, request: GenerateRequest, outbox: Outbox) -> Run | None:
        """Starts a request whose deltas go to `outbox`; None when it was refused, which the outbox was told."""
        if fault := self._refusal(request):
            usage = Meter(request, now_ms()).usage(OUTCOME_FAILED, now_ms())
            outbox.end(Delta(request_id=request.request_id, usage=usage, fault=fault.to_proto()))
            return None
        run = Run(request, outbox)
        self._running[request.request_id] = run
        run.task = asyncio.get_running_loop().create_task(self._execute(run))
        return run

    async def abort(self, run: Run) -> None:
        """Ends the request as soon as the engine lets go of it; it gets its last delta as ever."""
        run.aborted = True
        await self._engine.abort(run.request.request_id)

    async def drain(self) -> None:
        """Refuses new requests from now on, and waits until the running ones have ended."""
        self._draining = True
        while self._running:
            await asyncio.wait([run.task for run in self._running.values() if run.task])

    def _refusal(self, request: GenerateRequest) -> Fault | None:
        sampling = request.sampling
        if self._draining:
            return Unavailable("shutting_down", "This replica is ending; try again.", retry_after_ms=100)
        if request.request_id in self._running:
            return Conflict("duplicate_request", f"Request {request.request_id} is running already.")
        if request.model != self._spec.name:
            return NotFound("model_not_found", f"This replica serves {self._spec.name}, not {request.model!r}.")
        least = 0 if sampling.echo else 1
        if not (request.request_id and request.prompt_token_ids and sampling.n) or sampling.max_output_tokens < least:
            return InvalidRequest(
                "invalid_value", "A request needs an id, a prompt, at least one choice and one output token."
            )
        if len(self._running) >= self._spec.slots:
            return Unavailable(
                "overloaded", f"This replica runs {self._spec.slots} requests already.", retry_after_ms=1000
            )
        return None

    async def _execute(self, run: Run) -> None:
        outcome, fault = OUTCOME_ABORTED, None
        try:
            with (
                telemetry.attach(run.request.traceparent or None),
                telemetry.span(f"chat {run.request.model}", attributes=_attributes(run.request)) as span,
            ):
                outcome, fault = await self._generate(run)
                span.set_attribute(GenAi.OUTPUT_TOKENS, run.meter.output_tokens)
        finally:
            self._end(run, outcome, fault)

    async def _generate(self, run: Run) -> tuple[Outcome, Fault | None]:
        try:
            if not run.aborted:
                await self._pieces(run)
        except Fault as fault:
            return OUTCOME_FAILED, fault
        except Exception as error:
            if not run.aborted:
                log.error("the engine failed a request", request_id=run.request.request_id, exc_info=error)
                return OUTCOME_FAILED, Internal("engine_failed", "The model failed while it generated.")
        if run.meter.complete:
            return OUTCOME_COMPLETED, None
        if run.aborted:
            return OUTCOME_ABORTED, None
        return OUTCOME_FAILED, Internal("engine_failed", "The model stopped before it was done.")

    async def _pieces(self, run: Run) -> None:
        request_id, meter = run.request.request_id, run.meter
        arrived = time.monotonic()
        first = 0.0
        async for piece in self._engine.generate(run.request):
            if not first:
                first = time.monotonic()
            run.add(piece)
            if run.aborted:
                # The abort may have come before the engine knew the request; a second one does no harm.
                await self._engine.abort(request_id)
        if first:
            self._first_token.observe(first - arrived)
            steps = meter.output_tokens / run.request.sampling.n - 1
            if steps > 0:
                self._token_step.observe((time.monotonic() - first) / steps)

    def _end(self, run: Run, outcome: Outcome, fault: Fault | None) -> None:
        del self._running[run.request.request_id]
        self._generated.inc(run.meter.output_tokens)
        self._ended_tokens += run.meter.output_tokens
        reasoning_tokens = run.splitter.reasoning_tokens if run.splitter else 0
        run.usage = run.meter.usage(outcome, now_ms(), reasoning_tokens)
        run.ended_at = time.monotonic()
        run.end(
            Delta(
                request_id=run.request.request_id,
                finish_reason=FINISH_REASON_ABORT if outcome == OUTCOME_ABORTED else None,
                usage=run.usage,
                fault=fault.to_proto() if fault else None,
            )
        )


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def _attributes(request: GenerateRequest) -> dict[str, telemetry.AttributeValue]:
    return {
        GenAi.OPERATION: "chat",
        GenAi.PROVIDER: "modelplane",
        GenAi.REQUEST_MODEL: request.model,
        GenAi.REQUEST_MAX_TOKENS: request.sampling.max_output_tokens,
        GenAi.REQUEST_CHOICES: request.sampling.n,
        GenAi.INPUT_TOKENS: len(request.prompt_token_ids),
        GenAi.SERVICE_TIER: request.service_tier or "default",
    }
