"""Streams a run as server-sent events.

Whether the request is admitted, and as a rule its first token or failure, are known before the status is sent, so
a failure until then is a proper status and one after it an `error` event. Only where the first token takes long
does the stream begin before it, with comments that keep the connection alive. A chunk of plain text is a
precomputed prefix, the escaped text and a precomputed tail; all deltas that wait go out in one write.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, TokenLogprob
from modelplane.ratelimit.v1.ratelimit_pb2 import Reservation
from modelplane.usage.v1.usage_pb2 import Usage
from services.faults import Fault
from services.gateway.calls import Call
from services.gateway.completions import FINISH_REASONS, Fields, Identity, logprob_objects, usage_object
from services.gateway.outputs.answers import Answers, ChoiceStream
from services.gateway.requests.chat import ChatRequest
from services.gateway.runs import Outlet
from services.http_faults import error_body

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
# Texts are padded to a multiple of so many bytes: their lengths, seen from outside, would tell what they say.
PAD_TO = 32


class Envelope:
    """What the chunks of one stream have in common, as bytes: the fields that each repeats, padding, and the end."""

    def __init__(self, fields: Fields, *, include_usage: bool, include_obfuscation: bool) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._head = b"data: " + self._encode(fields)[:-1]
        self._include_usage = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._padding = base64.b64encode(os.urandom(PAD_TO)) if include_obfuscation else b""

    def end(self, usage: Usage) -> bytes:
        """The end of a stream that went well."""
        if not self._include_usage:
            return DONE
        return b"".join((self._head, b',"choices":[],"usage":', self._encode(usage_object(usage)), b"}\n\n", DONE))

    def _padded(self, size: int) -> bytes:
        """The field that brings what was said, of `size` bytes, to a multiple of PAD_TO."""
        return b',"obfuscation":"%b"' % self._padding[: -size % PAD_TO] if self._padding else b""


class Chunks(Envelope):
    """Writes the chunks of one stream as bytes. `answers` where the choices may have calls."""

    def __init__(self, identity: Identity, chat: ChatRequest, answers: Answers | None = None) -> None:
        fields = {
            "id": identity.id,
            "object": "chat.completion.chunk",
            "created": identity.created,
            "model": identity.model,
            "service_tier": identity.service_tier,
            "system_fingerprint": identity.system_fingerprint,
        }
        super().__init__(fields, include_usage=chat.include_usage, include_obfuscation=chat.include_obfuscation)
        self._tail = b'},"logprobs":null,"finish_reason":null}]'
        self._logprobs = chat.logprobs
        self._answers = answers
        # By choice; a choice is opened by its first delta.
        self._openers: dict[int, bytes] = {}
        self._calling: dict[int, ChoiceStream] = {}
        self._unsaid: dict[int, list[TokenLogprob]] = {}

    def of(self, deltas: Iterable[Delta]) -> bytes:
        """The events for some deltas."""
        parts: list[bytes] = []
        plain = self._answers is None and not self._logprobs
        for delta in deltas:
            opener = self._openers.get(delta.index)
            if opener is None:
                opener = self._open(delta.index)
                parts += (opener, b'"role":"assistant","content":"","refusal":null', self._tail, self._end)
            reason = FINISH_REASONS.get(delta.finish_reason)
            if plain:
                if text := delta.text:
                    said = self._encode(text)
                    parts += (opener, b'"content":', said, self._tail, self._padded(len(said)), self._end)
            else:
                reason = self._rich(opener, delta, reason, parts)
            if reason:
                parts += (opener, b'},"logprobs":null,"finish_reason":"', reason.encode(), b'"}]', self._end)
        return b"".join(parts)

    def _open(self, index: int) -> bytes:
        opener = self._openers[index] = b'%b,"choices":[{"index":%d,"delta":{' % (self._head, index)
        return opener

    def _rich(self, opener: bytes, delta: Delta, reason: str | None, parts: list[bytes]) -> str | None:
        """Adds the chunks of a delta that may have calls or log probabilities; gives OpenAI's finish reason."""
        said: list[Mapping[str, Any]] = [{"content": delta.text}] if delta.text else []
        if self._answers is not None:
            stream = self._calling.get(delta.index)
            if stream is None:
                stream = self._calling[delta.index] = self._answers.stream()
            said = [*stream.feed(delta.text)] if delta.text else []
            if reason:
                last, reason = stream.finish(reason)
                said += last
        # What the parser holds back keeps its log probabilities until it is said.
        unsaid = self._unsaid.setdefault(delta.index, [])
        unsaid += delta.logprobs
        if unsaid and reason and not said:
            said = [{}]
        for fields in said:
            tail = self._tail
            if unsaid:
                logprobs = {"content": logprob_objects(unsaid), "refusal": None}
                tail = b'},"logprobs":%b,"finish_reason":null}]' % self._encode(logprobs)
                unsaid.clear()
            text = self._encode(fields)[1:-1]
            parts += (opener, text, tail, self._padded(len(text)), self._end)
        return reason


class Source(Protocol):
    """What is streamed: a run, or several as one."""

    outlet: Outlet

    @property
    def reservation(self) -> Reservation | None: ...


class Writer(Protocol):
    """What makes events of deltas."""

    def of(self, deltas: Iterable[Delta], /) -> bytes: ...

    def end(self, usage: Usage, /) -> bytes: ...


S = TypeVar("S", bound=Source)


async def stream(call: Call, run: S, make_chunks: Callable[[S], Writer], beat_s: float) -> None:
    """Answers a call with a run's deltas as they come, and a comment where none came for `beat_s` seconds.

    Raises the fault that came before the stream had begun.
    """
    with beats(run, beat_s):
        try:
            deltas = await run.outlet.take()
            while not deltas:
                # Nothing yet. Once it is admitted all headers are known, and waiting must not look like death.
                if run.reservation is not None:
                    await _keep_alive(call)
                deltas = await run.outlet.take()
            chunks = make_chunks(run)
            if not call.status:
                await call.start_events()
            while not deltas or not deltas[-1].HasField("usage"):
                await call.write(chunks.of(deltas) if deltas else KEEP_ALIVE)
                deltas = await run.outlet.take()
            await call.write(chunks.of(deltas) + chunks.end(deltas[-1].usage), last=True)
        except Fault as fault:
            if not call.status:
                raise
            call.fault = fault
            await call.write(b"data: %b\n\n" % error_body(fault), last=True)


async def _keep_alive(call: Call) -> None:
    if not call.status:
        await call.start_events()
    await call.write(KEEP_ALIVE)


@contextmanager
def beats(run: Source, beat_s: float) -> Iterator[None]:
    """Within the block a `take` that waits is nudged every `beat_s` seconds."""
    loop = asyncio.get_running_loop()

    def beat() -> None:
        run.outlet.nudge()
        timers[0] = loop.call_later(beat_s, beat)

    timers = [loop.call_later(beat_s, beat)]
    try:
        yield
    finally:
        timers[0].cancel()
