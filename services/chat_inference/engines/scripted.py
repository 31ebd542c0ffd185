"""The SCRIPTED engine: no language model, but a deterministic stand-in for load tests and tests of the platform.

It says ` tok1 tok2 tok3 …`, or the script's text in tokens of four characters, at configured times, whatever it is
asked: the number of choices, the bound on tokens and the wishes for an echo of the prompt and for log probabilities
(made up) matter to it, nothing else does. It speaks the same contract as a real engine, and serves only models whose
configuration says `engine = "scripted"`.
"""

import asyncio
from collections.abc import AsyncIterator

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    GenerateRequest,
    Sampling,
    TokenLogprob,
)
from services.catalog import ScriptSpec
from services.chat_inference.engines.engine import Piece, Report

# Without delays, so many tokens are spoken before others get their turn: an abort still comes through at once.
_STEPS_PER_TURN = 16

_TOKEN_CHARACTERS = 4
# Scripted models have a token per byte, and above those the marks of the conversation.
_BYTES = 256


class ScriptedEngine:
    """Speaks its script; see the module."""

    def __init__(self, script: ScriptSpec) -> None:
        self._script = script
        self._words = words_of(script.text)
        # What each running request waits for; None while it speaks.
        self._running: dict[str, asyncio.Future[None] | None] = {}

    async def start(self, report: Report) -> None:
        report("reading the script")

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Piece]:
        script = self._script
        request_id = request.request_id
        sampling = request.sampling
        words = self._words
        tokens = len(words) or script.tokens
        steps = min(tokens, sampling.max_output_tokens)
        last = FINISH_REASON_LENGTH if steps < tokens else FINISH_REASON_STOP
        with_logprobs = sampling.HasField("top_logprobs")
        choices = range(request.sampling.n)
        self._running[request_id] = None
        if sampling.echo:
            prompt = bytes(token for token in request.prompt_token_ids if token < _BYTES).decode(errors="replace")
            logprobs = tuple(made_up(word, sampling) for word in words_of(prompt)) if with_logprobs else ()
            for choice in choices:
                yield Piece(choice, prompt, 0, FINISH_REASON_UNSPECIFIED, 0, logprobs)
        if not steps:
            # Only the prompt was asked for.
            for choice in choices:
                yield Piece(choice, "", 0, last, 0)
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
                text = words[step - 1] if words else f" tok{step}"
                reason = last if step == steps else FINISH_REASON_UNSPECIFIED
                logprobs = (made_up(text, sampling),) if with_logprobs else ()
                for choice in choices:
                    yield Piece(choice, text, 1, reason, 0, logprobs)
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


def words_of(text: str) -> list[str]:
    return [text[i : i + _TOKEN_CHARACTERS] for i in range(0, len(text), _TOKEN_CHARACTERS)]


def made_up(text: str, sampling: Sampling) -> TokenLogprob:
    """The same for the same token, most likely itself; the others at its place are ` alt1`, ` alt2` and so on."""
    words = [text, *(f" alt{rank}" for rank in range(1, sampling.top_logprobs))][: sampling.top_logprobs]
    base = -len(text) / 16
    top = [TokenLogprob(token=word, raw=word.encode(), logprob=base - rank) for rank, word in enumerate(words)]
    return TokenLogprob(token=text, raw=text.encode(), logprob=base, top=top)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
