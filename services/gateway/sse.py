"""Streams a run as server-sent events.

Whether the request is admitted, and its first token or failure, are known before the status is sent, so a failure
until then is a proper status and one after it an `error` event. A chunk is a precomputed prefix, the escaped text
and a precomputed tail; all deltas that wait go out in one write.
"""

from collections.abc import Iterable

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta
from modelplane.usage.v1.usage_pb2 import Usage
from services.faults import Fault
from services.gateway.calls import Call
from services.gateway.completions import FINISH_REASONS, Identify, Identity, usage_object
from services.gateway.errors import error_body
from services.gateway.runs import Run

DONE = b"data: [DONE]\n\n"


class Chunks:
    """Writes the chunks of one stream as bytes."""

    def __init__(self, identity: Identity, include_usage: bool) -> None:
        head = msgspec.json.encode(
            {
                "id": identity.id,
                "object": "chat.completion.chunk",
                "created": identity.created,
                "model": identity.model,
                "service_tier": identity.service_tier,
                "system_fingerprint": identity.system_fingerprint,
            }
        )
        self._head = b"data: " + head[:-1]
        self._include_usage = include_usage
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._tail = b'},"logprobs":null,"finish_reason":null}]' + self._end
        # By choice; a choice is opened by its first delta.
        self._openers: dict[int, bytes] = {}
        self._encode = msgspec.json.Encoder().encode

    def of(self, deltas: Iterable[Delta]) -> bytes:
        """The events for some deltas."""
        parts: list[bytes] = []
        for delta in deltas:
            opener = self._openers.get(delta.index)
            if opener is None:
                opener = self._open(delta.index)
                parts += (opener, b'"role":"assistant","content":"","refusal":null', self._tail)
            if text := delta.text:
                parts += (opener, b'"content":', self._encode(text), self._tail)
            if reason := FINISH_REASONS.get(delta.finish_reason):
                parts += (opener, b'},"logprobs":null,"finish_reason":"', reason.encode(), b'"}]', self._end)
        return b"".join(parts)

    def end(self, usage: Usage) -> bytes:
        """The end of a stream that went well."""
        if not self._include_usage:
            return DONE
        return b"".join((self._head, b',"choices":[],"usage":', self._encode(usage_object(usage)), b"}\n\n", DONE))

    def _open(self, index: int) -> bytes:
        opener = self._openers[index] = b'%b,"choices":[{"index":%d,"delta":{' % (self._head, index)
        return opener


async def stream(call: Call, run: Run, identify: Identify, include_usage: bool) -> None:
    """Answers a call with a run's deltas as they come. Raises the fault that came before the first of them."""
    deltas = await run.outlet.take()
    chunks = Chunks(identify(run.model), include_usage)
    await call.start_events()
    try:
        while not deltas[-1].HasField("usage"):
            await call.write(chunks.of(deltas))
            deltas = await run.outlet.take()
        await call.write(chunks.of(deltas) + chunks.end(deltas[-1].usage), last=True)
    except Fault as fault:
        call.fault = fault
        await call.write(b"data: %b\n\n" % error_body(fault), last=True)
