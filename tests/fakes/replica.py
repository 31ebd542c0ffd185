"""A replica whose words, pace and ways to fail are the test's to choose."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_ABORT,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Delta,
    GenerateRequest,
    GenerateResponse,
    SessionRequest,
    SessionResponse,
)
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED, Outcome, Usage
from services.faults import Fault, Unavailable

Frames = asyncio.Queue[SessionResponse | None]


class FakeReplica:
    """Says `words`, one token each, `token_s` seconds apart."""

    def __init__(self, words: list[str] | None = None, token_s: float = 0.0) -> None:
        self.words = ["Hello", ",", " wörld", "\n", '"!"'] if words is None else words
        self.token_s = token_s
        # After so many tokens of a request: the whole replica dies, or the request fails with `failure`.
        self.dies_after: int | None = None
        self.fails_after: int | None = None
        self.failure: Fault = Fault("engine_failed", "The engine failed.")
        # Called with each request before its first token.
        self.on_start: Callable[[GenerateRequest], None] = lambda request: None
        self.deaf_to_aborts = False
        self.requests: list[GenerateRequest] = []
        self.aborted_at: dict[str, float] = {}
        self.sessions = 0
        self._open: set[Frames] = set()
        self._runs: set[asyncio.Task[None]] = set()

    async def session(self, requests: AsyncIterator[SessionRequest], /) -> AsyncIterator[SessionResponse]:
        frames: Frames = asyncio.Queue()
        self.sessions += 1
        self._open.add(frames)
        reader = asyncio.create_task(self._read(requests, frames))
        try:
            while (frame := await frames.get()) is not None:
                yield frame
            raise Unavailable("service_unavailable", "The replica is gone.")
        finally:
            self._open.discard(frames)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def generate(self, request: GenerateRequest, /) -> AsyncIterator[GenerateResponse]:
        yield GenerateResponse(delta=Delta(request_id=request.request_id))

    def die(self) -> None:
        """Ends every session at once."""
        for frames in self._open:
            frames.put_nowait(None)

    def stop(self) -> None:
        """Aborts what runs, as a replica does that is told to end."""
        for task in self._runs:
            task.cancel()

    async def _read(self, requests: AsyncIterator[SessionRequest], frames: Frames) -> None:
        running: dict[str, asyncio.Task[None]] = {}
        try:
            async for asked in requests:
                for request in asked.starts:
                    self.requests.append(request)
                    self.on_start(request)
                    task = asyncio.create_task(self._run(request, frames))
                    running[request.request_id] = task
                    self._runs.add(task)
                    task.add_done_callback(self._runs.discard)
                for request_id in asked.aborts:
                    self.aborted_at.setdefault(request_id, time.monotonic())
                    if not self.deaf_to_aborts:
                        running[request_id].cancel()
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _run(self, request: GenerateRequest, frames: Frames) -> None:
        said = 0
        n = request.sampling.n

        def send(delta: Delta) -> None:
            delta.request_id = request.request_id
            frames.put_nowait(SessionResponse(deltas=[delta]))

        def end(outcome: Outcome, fault: Fault | None = None) -> None:
            usage = Usage(
                request_id=request.request_id,
                attribution=request.attribution,
                model=request.model,
                service_tier=request.service_tier,
                input_tokens=len(request.prompt_token_ids) + 9 * len(request.images),
                input_image_tokens=10 * len(request.images),
                cached_input_tokens=1,
                output_tokens=said * n,
                outcome=outcome,
                operation=request.operation,
            )
            send(Delta(usage=usage, fault=fault.to_proto() if fault else None))

        try:
            for word in self.words[: request.sampling.max_output_tokens]:
                if self.dies_after == said:
                    self.die()
                    return
                if self.fails_after == said:
                    end(OUTCOME_FAILED, self.failure)
                    return
                if self.token_s:
                    await asyncio.sleep(self.token_s)
                said += 1
                for index in range(n):
                    send(Delta(index=index, text=word, tokens=1))
            cut = len(self.words) > request.sampling.max_output_tokens
            for index in range(n):
                send(Delta(index=index, finish_reason=FINISH_REASON_LENGTH if cut else FINISH_REASON_STOP))
            end(OUTCOME_COMPLETED)
        except asyncio.CancelledError:
            send(Delta(finish_reason=FINISH_REASON_ABORT))
            end(OUTCOME_ABORTED)
