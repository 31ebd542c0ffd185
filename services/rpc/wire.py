"""Frames on a socket file: how a stream of messages travels between two processes of one machine.

gRPC costs a message some 0.1 ms of CPU here, a good part of it for the thread that polls its sockets; a session
carries one or two messages of every request, so on one machine they go as frames: a length, a kind, and the
message. Both directions end on their own. Kept true: a writer waits while the peer does not read, a reader stops
reading while nobody takes what came, and a peer that does not answer a ping is lost.
"""

import asyncio
from collections import deque
from struct import Struct
from typing import Final, NamedTuple, cast

HEADER: Final = Struct(">IB")

# The kinds of frames. A client says HELLO and MESSAGEs, then END; a server MESSAGEs, then END or FAULT.
HELLO, MESSAGE, END, FAULT, PING, PONG = range(6)

# Bytes that may wait to be taken before the socket is left unread.
HIGH_WATER: Final = 1024 * 1024


class Frame(NamedTuple):
    """A kind and its payload."""

    kind: int
    payload: bytes


class Wire(asyncio.Protocol):
    """One end of a connection. `max_bytes` bounds a payload; a peer that sends more is cut off."""

    def __init__(self, max_bytes: int) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._max_bytes = max_bytes
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._frames: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._reading = True
        self._dropping = False
        self._taker: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        # Whether anything came since the last look.
        self._heard = True
        self._pings: asyncio.TimerHandle | None = None

    async def take(self) -> Frame | None:
        """The next frame, None when the connection is gone. For one taker."""
        while not self._frames:
            if self.lost.done():
                return None
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        frame = self._frames.popleft()
        self._waiting_bytes -= len(frame.payload)
        if not self._reading and self._waiting_bytes <= HIGH_WATER // 2 and self._transport:
            self._reading = True
            self._transport.resume_reading()
        return frame

    async def send(self, kind: int, payload: bytes = b"") -> bool:
        """Writes a frame; waits while the peer does not read. False when the peer is lost."""
        self._write(kind, payload)
        if self._writable is not None:
            await asyncio.wait((self._writable, self.lost), return_when=asyncio.FIRST_COMPLETED)
        return not self.lost.done()

    def ping(self, interval_s: float) -> None:
        """From now on the peer has to be heard of once in two intervals, or else it is lost."""
        self._pings = asyncio.get_running_loop().call_later(interval_s, self._look, interval_s, True)

    async def finish(self, timeout_s: float) -> None:
        """Lets the peer read what was written and close; what it still says is dropped. Then closes at once.

        To close first, with something unread, could cost the peer what it has not read yet.
        """
        self._dropping = True
        self._frames.clear()
        if not self._reading and self._transport:
            self._transport.resume_reading()
        try:
            await asyncio.wait((self.lost,), timeout=timeout_s)
        finally:
            self.close()

    def close(self) -> None:
        """Ends the connection at once."""
        if self._transport:
            self._transport.abort()

    def _write(self, kind: int, payload: bytes) -> None:
        if self._transport and not self.lost.done():
            self._transport.write(HEADER.pack(len(payload), kind) + payload)

    def _look(self, interval_s: float, heard: bool) -> None:
        """`heard` is what the last look found. Who does not read cannot complain that nothing comes."""
        self._heard = self._heard or not self._reading
        if not self._heard and not heard:
            self.close()
            return
        if not self._heard:
            self._write(PING, b"")
        heard, self._heard = self._heard, False
        self._pings = asyncio.get_running_loop().call_later(interval_s, self._look, interval_s, heard)

    # ------------------------------------------------------------------------------- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not a subclass of it in uvloop.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Takes the whole frames out of what came; what is left waits for the rest."""
        self._heard = True
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer) if self._complete() else b""
            if not data:
                return
            self._buffer.clear()
        start, end = 0, len(data)
        while end - start >= HEADER.size:
            length, kind = HEADER.unpack_from(data, start)
            if length > self._max_bytes:
                self.close()
                return
            stop = start + HEADER.size + length
            if stop > end:
                break
            self._accept(kind, data[start + HEADER.size : stop])
            start = stop
        self._buffer += data[start:]

    def _complete(self) -> bool:
        """Whether the buffer begins with a whole frame, or one that is too long."""
        if len(self._buffer) < HEADER.size:
            return False
        length: int = HEADER.unpack_from(self._buffer)[0]
        return length > self._max_bytes or len(self._buffer) >= HEADER.size + length

    def _accept(self, kind: int, payload: bytes) -> None:
        if kind == PING:
            self._write(PONG, b"")
            return
        if kind == PONG or self._dropping:
            return
        self._frames.append(Frame(kind, payload))
        self._waiting_bytes += len(payload)
        if self._waiting_bytes > HIGH_WATER and self._reading and self._transport:
            self._reading = False
            self._transport.pause_reading()
        self._wake(self._taker)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        self._wake(writable)

    def connection_lost(self, error: Exception | None) -> None:
        if self._pings:
            self._pings.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        self._wake(self._taker)

    @staticmethod
    def _wake(waiter: "asyncio.Future[None] | None") -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
