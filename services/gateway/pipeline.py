"""The one conductor: every path that runs a model goes through here, so that none goes unmetered.

    authenticate -> load images -> render and count -> reserve -> hold -> place -> generate -> settle and record

From reservation on, the work belongs to a task of the server's own that no client can cancel: whatever happens to
the client, the slot is released, the reservation settled and the usage recorded. A replica that is lost before
the client was given anything costs the client nothing but time: the request is placed again elsewhere.

Nothing is served for nothing: money is held before a request is placed, a stream's use is told from its first piece
on (`checkpoints`), and the end of an answer is given out when its record is safe. Nothing is served on credit
either: a run that outgrows what is held gets more, or ends there as if by its length.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from hashlib import blake2b

from modelplane.auth.v1.auth_pb2 import Principal
from modelplane.billing.v1 import billing_pb2
from modelplane.billing.v1.billing_api import BillingService
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest
from modelplane.ratelimit.v1.ratelimit_api import RateLimitService
from modelplane.ratelimit.v1.ratelimit_pb2 import ReserveRequest, SettleRequest, TopUpRequest
from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import Placement, PlaceRequest, ReleaseRequest
from modelplane.tokenizer.v1.tokenizer_api import TokenizerService
from modelplane.tokenizer.v1.tokenizer_pb2 import Prompt, RenderRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED, Attribution, Usage
from services import context, telemetry
from services.faults import DeadlineExceeded, Fault, Internal, RateLimited, Unavailable
from services.gateway import metrics
from services.gateway.access import check_model
from services.gateway.checkpoints import Checkpoints
from services.gateway.images.loader import ImageLoader, LoadedImage
from services.gateway.retries import insist
from services.gateway.runs import Outlet, Run
from services.gateway.sessions import Session, Sessions
from services.gateway.settings import GatewaySettings
from services.gateway.work import Work

DEFAULT_TIER = "default"
# What a choice may say after the engine was told to stop: it is told between two steps of a few milliseconds.
STOPPING_TOKENS = 8

log = telemetry.logger(__name__)


class Pipeline:
    """Conducts runs. The caller is known (`access`); the endpoint reads the run's outlet."""

    def __init__(
        self,
        *,
        tokenizer: TokenizerService,
        ratelimit: RateLimitService,
        router: RouterService,
        billing: BillingService,
        sessions: Sessions,
        images: ImageLoader,
        settings: GatewaySettings,
    ) -> None:
        self._tokenizer = tokenizer
        self._ratelimit = ratelimit
        self._router = router
        self._billing = billing
        self._sessions = sessions
        self._images = images
        self._settings = settings
        self._runs: set[Run] = set()
        self._checkpoints = Checkpoints(billing, self._runs, usage_seen, settings.checkpoint_interval_s)
        metrics.IN_FLIGHT.set_function(lambda: len(self._runs))

    def start(self, request_id: str, operation: str, principal: Principal, work: Work) -> Run:
        """Begins a run, which then goes to its end whether or not anybody reads its outlet."""
        outlet = Outlet(self._settings.max_waiting_deltas if work.stream else None)
        run = Run(request_id, operation, principal, work, outlet)
        self._runs.add(run)
        run.task = asyncio.get_running_loop().create_task(self._conduct(run))
        return run

    async def finish(self) -> None:
        """Waits until every run has settled and recorded."""
        while self._runs:
            await asyncio.wait([run.task for run in self._runs if run.task])

    async def close(self) -> None:
        """Ends what still runs; what was generated until now is billed."""
        for run in self._runs:
            run.abort(Unavailable("shutting_down", "The server is stopping. Please try again."))
        await self.finish()
        await self._checkpoints.close()

    async def _conduct(self, run: Run) -> None:
        timeout_s = self._settings.request_timeout_s
        timer = asyncio.get_running_loop().call_later(timeout_s, lambda: run.abort(_timed_out(timeout_s)))
        fault: Fault | None = None
        try:
            prompt = await self._render_and_count(run)
            await self._reserve(run, prompt)
            await self._hold(run, prompt)
            await self._place_and_generate(run, prompt)
        except Fault as raised:
            fault = raised
        except Exception as error:
            log.error("a run failed", exc_info=error)
            fault = Internal("internal", "The server had an error while processing your request.")
        finally:
            if fault is not None:
                run.outlet.end(fault)
            timer.cancel()
            try:
                fault = await self._settle_and_record(run)
            finally:
                run.finish(fault)
                self._runs.discard(run)

    async def _render_and_count(self, run: Run) -> Prompt:
        request = run.work.render_request(run.principal.organization_id)
        if run.work.images:
            with run.abortable, telemetry.span("load images"):
                run.images = await self._images.load(run.work.model, run.work.images)
            _show(request, run.images)
        with run.abortable, telemetry.span("render and count"):
            rendered = await self._tokenizer.render(request)
        check_model(run.principal, run.work.model, rendered.prompt.model)
        run.model = rendered.prompt.model
        run.input_tokens = len(rendered.prompt.token_ids) + rendered.prompt.image_tokens
        run.input_image_tokens = rendered.prompt.image_tokens + len(run.images)
        run.tool_format = rendered.prompt.tool_format
        return rendered.prompt

    async def _reserve(self, run: Run, prompt: Prompt) -> None:
        request = ReserveRequest(
            request_id=run.request_id,
            organization_id=run.principal.organization_id,
            project_id=run.principal.project_id,
            model=run.model,
            input_tokens=run.input_tokens,
            max_output_tokens=prompt.max_output_tokens * run.work.n,
            key_id=run.principal.key_id,
            usage_tier=run.principal.usage_tier,
        )
        if run.principal.limits:
            request.overrides.extend(run.principal.limits)
        run.reserved = True
        try:
            with run.abortable, telemetry.span("reserve"):
                run.reservation = (await self._ratelimit.reserve(request)).reservation
        except RateLimited:
            run.reserved = False
            raise
        run.reserved_output_tokens = run.reservation.tokens - run.input_tokens

    async def _hold(self, run: Run, prompt: Prompt) -> None:
        most = prompt.max_output_tokens * run.work.n
        request = billing_pb2.HoldRequest(
            request_id=run.request_id,
            attribution=attribution(run),
            model=run.model,
            service_tier=_wanted_tier(run.work.service_tier),
            input_tokens=run.input_tokens,
            expected_output_tokens=min(most, max(0, run.reserved_output_tokens)),
            max_output_tokens=most,
        )
        run.held = True
        with run.abortable, telemetry.span("hold"):
            held = (await self._billing.hold(request)).output_tokens
        if held < most:
            run.held_output_tokens = held
        # Of an answer in one piece nothing is known before its end.
        if not run.whole:
            run.on_first_delta = self._checkpoints.first
            self._watch(run)

    def _watch(self, run: Run) -> None:
        covered = run.reserved_output_tokens
        if run.held_output_tokens is not None:
            # What the engine still says while it is being stopped is paid for as well.
            covered = min(covered, run.held_output_tokens - STOPPING_TOKENS * run.work.n)
        run.watch(covered, self._start_growing)

    def _start_growing(self, run: Run) -> None:
        run.growth = asyncio.get_running_loop().create_task(self._grow(run))

    async def _grow(self, run: Run) -> None:
        """Has others see what the run takes beyond its estimate while it runs; settling corrects it in any case."""
        used = run.output_tokens
        with context.call(run.request_id, self._settings.settle_timeout_s):
            if used > run.reserved_output_tokens:
                await self._top_up(run, used)
            held = run.held_output_tokens
            if held is not None and used > held - STOPPING_TOKENS * run.work.n and not await self._extend(run, used):
                return
        self._watch(run)

    async def _top_up(self, run: Run, used: int) -> None:
        try:
            tokens = run.input_tokens + used
            topped_up = await self._ratelimit.top_up(TopUpRequest(request_id=run.request_id, tokens=tokens))
            run.reserved_output_tokens = topped_up.tokens - run.input_tokens
        except Fault as fault:
            log.debug("reservation not topped up", reason=fault.reason)
        if run.reserved_output_tokens <= used:
            # An answer that takes no more than was asked for would have us ask again at every token.
            run.reserved_output_tokens = sys.maxsize

    async def _extend(self, run: Run, used: int) -> bool:
        """Holds more money. False when there is none, and the run was told to end."""
        request = billing_pb2.ExtendRequest(request_id=run.request_id, output_tokens=used)
        try:
            extended = await self._billing.extend(request)
            run.held_output_tokens = max(extended.output_tokens, used + STOPPING_TOKENS * run.work.n)
        except Fault as fault:
            log.info("an answer was cut short", reason=fault.reason)
            run.cut()
            if run.stop is not None:
                run.stop()
            return False
        return True

    async def _place_and_generate(self, run: Run, prompt: Prompt) -> None:
        lost: list[str] = []
        while True:
            try:
                placement = await self._place(run, prompt, lost)
                fault = await self._generate(run, prompt, placement)
            finally:
                await self._release(run)
            if fault is None:
                return
            # Unavailable is the replica's trouble, not the request's: it was lost, or it is stopping.
            lost.append(placement.replica_id)
            again = isinstance(fault, Unavailable) and len(lost) <= self._settings.max_lost_replicas
            if not again or not run.outlet.restart():
                raise fault
            log.info("placing again", lost=lost[-1], reason=fault.reason)

    async def _place(self, run: Run, prompt: Prompt, lost: Sequence[str]) -> Placement:
        request = PlaceRequest(
            request_id=run.request_id,
            model=run.model,
            prefix_hash=_prefix_hash(run, prompt),
            service_tier=_wanted_tier(run.work.service_tier),
            excluded_replica_ids=lost,
            project_id=run.principal.project_id,
            key_id=run.principal.key_id,
            weight=run.principal.weight,
        )
        # How long to queue is the router's to decide.
        with (
            run.abortable,
            telemetry.span("place"),
            context.call(run.request_id, self._settings.request_timeout_s),
        ):
            placement = (await self._router.place(request)).placement
        run.service_tier = placement.service_tier
        return placement

    async def _generate(self, run: Run, prompt: Prompt, placement: Placement) -> Fault | None:
        """One attempt at one replica; gives what ended it early, None for the model's own end."""
        session = self._sessions.to(placement.address)
        attempt = run.begin()
        session.start(_generate_request(run, prompt, placement), run)
        run.stop = lambda: self._abort(run, session)
        run.on_abort(run.stop)
        try:
            return await attempt
        finally:
            run.on_abort(None)
            run.stop = None
            session.forget(run.request_id)

    def _abort(self, run: Run, session: Session) -> None:
        session.abort(run.request_id)
        asyncio.get_running_loop().call_later(self._settings.abort_grace_s, run.end_attempt)

    async def _release(self, run: Run) -> None:
        try:
            await self._router.release(ReleaseRequest(request_id=run.request_id))
        except Fault as fault:
            # The router drops placements that the replica's heartbeats no longer name.
            log.warning("slot not released", reason=fault.reason)

    async def _settle_and_record(self, run: Run) -> Fault | None:
        """Gives what kept the usage from being recorded."""
        usage = run.usage or usage_seen(run)
        billed = _is_billed(run, usage)
        with telemetry.span("settle and record"), context.call(run.request_id, self._settings.settle_timeout_s):
            await self._settle(run, usage.input_tokens + usage.output_tokens if billed else 0)
            if billed:
                metrics.billed(usage)
                return await self._record(usage)
            if run.held:
                await self._give_back(run)
        return None

    async def _settle(self, run: Run, tokens: int) -> None:
        if not run.reserved:
            return
        if run.growth is not None:
            # What came after the settlement would be of no use.
            run.growth.cancel()
            await asyncio.wait((run.growth,))
        try:
            await self._ratelimit.settle(SettleRequest(request_id=run.request_id, tokens=tokens))
        except Fault as fault:
            # The reservation's lease ends by itself, with all of it counted as used.
            log.warning("reservation not settled", reason=fault.reason)

    async def _record(self, usage: Usage) -> Fault | None:
        request = billing_pb2.RecordRequest()
        # Half of what it takes to make the request of it.
        request.usages.add().CopyFrom(usage)
        try:
            await insist(lambda: self._billing.record(request))
        except Fault as fault:
            log.error("usage not recorded", reason=fault.reason, usage=str(usage))
            return fault
        return None

    async def _give_back(self, run: Run) -> None:
        try:
            await self._billing.release(billing_pb2.ReleaseRequest(request_id=run.request_id))
        except Fault as fault:
            # What is held ends by itself.
            log.warning("money not given back", reason=fault.reason)


def _show(request: RenderRequest, images: Sequence[LoadedImage]) -> None:
    """Puts what was learnt of the images into the parts that stand for them."""
    parts = (part for message in request.messages for part in message.parts if part.HasField("image"))
    for part, image in zip(parts, images, strict=False):
        part.image.CopyFrom(image.seen)


def _generate_request(run: Run, prompt: Prompt, placement: Placement) -> GenerateRequest:
    sampling = run.work.sampling(prompt)
    request = GenerateRequest(
        request_id=run.request_id,
        model=run.model,
        prompt_token_ids=prompt.token_ids,
        sampling=sampling,
        attribution=attribution(run),
        service_tier=placement.service_tier,
        operation=run.operation,
        traceparent=telemetry.traceparent(),
        # No organisation learns from its latency what another has asked.
        cache_salt=run.principal.organization_id,
        # An echoed prompt is told from the answer by being a delta of its own.
        whole=run.whole and not sampling.echo,
    )
    for image in run.images:
        request.images.add(content=image.content, detail=image.seen.detail)
    if prompt.HasField("thinking"):
        request.thinking.CopyFrom(prompt.thinking)
    return request


def _wanted_tier(asked: str) -> str:
    """The class to be served in: `auto` is what the project has, the standard one."""
    return DEFAULT_TIER if asked == "auto" else asked


def _prefix_hash(run: Run, prompt: Prompt) -> int:
    """What requests that should meet the same cache have in common."""
    key = run.work.prompt_cache_key
    if not key:
        return prompt.prefix_hash
    return prompt.prefix_hash ^ int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")


def attribution(run: Run) -> Attribution:
    principal = run.principal
    return Attribution(
        organization_id=principal.organization_id, project_id=principal.project_id, key_id=principal.key_id
    )


def _is_billed(run: Run, usage: Usage) -> bool:
    """Whoever got nothing through no doing of their own pays nothing."""
    if usage.outcome == OUTCOME_COMPLETED:
        return True
    return usage.output_tokens > 0 and (run.outlet.taken or run.aborted_by_client)


def usage_seen(run: Run) -> Usage:
    """What a run has used as far as its gateway knows: the engine's own account comes at the end, if it comes."""
    return Usage(
        request_id=run.request_id,
        attribution=attribution(run),
        model=run.model,
        service_tier=run.service_tier or DEFAULT_TIER,
        input_tokens=run.input_tokens,
        input_image_tokens=run.input_image_tokens,
        output_tokens=run.output_tokens,
        outcome=OUTCOME_ABORTED if run.aborted else OUTCOME_FAILED,
        started_at_ms=run.started_at_ms,
        finished_at_ms=time.time_ns() // 1_000_000,
        operation=run.operation,
    )


def _timed_out(timeout_s: float) -> Fault:
    return DeadlineExceeded("timeout", f"The request was not finished within {timeout_s:g} seconds.")
