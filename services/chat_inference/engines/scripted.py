"""The SCRIPTED engine: no language model, but a deterministic stand-in for load tests and tests of the platform.

It says ` tok1 tok2 tok3 …` at configured times, whatever it is asked: sampling, seed and stop strings do not
matter to it, the number of choices and the bound on tokens do. It speaks the same contract as a real engine, and
serves only models whose configuration says `engine = "scripted"`.
"""

import asyncio
from collections.abc import AsyncIterator

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    GenerateRequest,
)
from services.catalog import ScriptSpec
from services.chat_inference.engines.engine import Piece, Report

# Without delays, so many tokens are spoken before others get their turn: an abort still comes through at once.
_STEPS_PER_TURN = 16


class ScriptedEngine:
    """Speaks its script; see the module."""

    def __init__(self, script: ScriptSpec) -> None:
        self._script = script
        # What each running request waits for; None while it speaks.
        self._running: dict[str, asyncio.Future[None] | None] = {}

    async def start(self, report: Report) -> None:
        report("reading the script")

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        script = self._script
        request_id = request.request_id
        steps = min(script.tokens, request.sampling.max_output_tokens)
        last = FINISH_REASON_LENGTH if steps < script.tokens else FINISH_REASON_STOP
        choices = range(request.sampling.n)
        self._running[request_id] = None
        due = asyncio.get_running_loop().time() + script.first_token_ms / 1000
        try:
            for step in range(1, steps + 1):
                if script.first_token_ms or script.token_ms:
                    await self._wait(request_id, due)
                elif step % _STEPS_PER_TURN == 0:
                    await asyncio.sleep(0)
                if request_id not in self._running:
                    return
                due += script.token_ms / 1000
                text = f" tok{step}"
                reason = last if step == steps else FINISH_REASON_UNSPECIFIED
                for choice in choices:
                    yield Piece(choice, text, 1, reason, 0)
        finally:
            self._running.pop(request_id, None)

    async def _wait(self, request_id: str, due: float) -> None:
        """Until `due` on the loop's clock, or until the request is aborted."""
        loop = asyncio.get_running_loop()
        if due <= loop.time():
            await asyncio.sleep(0)
            return
        waiter = loop.create_future()
        self._running[request_id] = waiter
        timer = loop.call_at(due, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    async def abort(self, request_id: str) -> None:
        waiter = self._running.pop(request_id, None)
        if waiter is not None:
            _wake(waiter)

    def cache_used(self) -> float:
        return 0.0

    def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        for request_id in list(self._running):
            await self.abort(request_id)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
