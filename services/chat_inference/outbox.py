"""What waits to be written to one gateway: the next frame of a session, filled by all of its requests.

Requests put their deltas straight into the frame, and the one writer takes it whole, so everything that an engine
step produced leaves in one message without an object in between. Kept true: deltas leave in the order in which
they came; the text that waits for a peer that does not read is bounded.
"""

import asyncio
from collections.abc import Callable

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, SessionResponse
from services.chat_inference.engines.engine import Piece
from services.faults import Cancelled

# What a delta weighs beside its text: its ids and numbers on the wire, and a usage record.
_DELTA_BYTES = 48
_USAGE_BYTES = 300


class Outbox:
    """The frame in the making. `on_full` is called once, when more than `limit_bytes` wait."""

    __slots__ = ("_closed", "_frame", "_full", "_limit", "_on_full", "_size", "_wake", "frames_taken")

    def __init__(self, limit_bytes: int, on_full: Callable[[], None]) -> None:
        self._limit = limit_bytes
        self._on_full = on_full
        self._frame = SessionResponse()
        self._size = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._full = False
        self.frames_taken = 0
        """Frames handed to the writer until now."""

    def add(self, request_id: str, piece: Piece) -> None:
        """Puts a piece into the frame; once the outbox is full or closed, nothing."""
        if self._size > self._limit or self._closed:
            self._overflow()
            return
        choice, text, tokens, finish_reason, _, logprobs, _ = piece
        self._size += len(text) + _DELTA_BYTES
        delta = self._frame.deltas.add(
            request_id=request_id, index=choice, text=text, tokens=tokens, finish_reason=finish_reason
        )
        if logprobs:
            delta.logprobs.extend(logprobs)
            self._size += delta.ByteSize()
        self._wake.set()

    def end(self, delta: Delta) -> None:
        """Puts the last delta of a request, the one that carries its usage."""
        if self._size > self._limit or self._closed:
            self._overflow()
            return
        self._size += _DELTA_BYTES + _USAGE_BYTES
        self._frame.deltas.append(delta)
        self._wake.set()

    def close(self) -> None:
        """Nothing more comes: `take` gives what is there and then None."""
        self._closed = True
        self._wake.set()

    async def take(self) -> SessionResponse | None:
        """The frame, as soon as there is something in it; None at the end. For one writer.

        Raises Cancelled (slow_client) when the writer came back too late.
        """
        while not self._size:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        if self._full:
            raise Cancelled("slow_client", "The session was ended because its frames were not read.")
        frame, self._frame, self._size = self._frame, SessionResponse(), 0
        self.frames_taken += 1
        return frame

    def _overflow(self) -> None:
        if not (self._full or self._closed):
            self._full = True
            self._frame = SessionResponse()
            self._on_full()
