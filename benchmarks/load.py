"""The load generator: keeps a fixed number of keep-alive connections busy for a bounded time, on loopback.

A process of its own, so that its work is not counted as the server's. Every response is checked
(`conversation.check`); the first wrong one ends the run, since a table with failures in it compares nothing.

Run: python -m benchmarks.load --port 9000 --key sk-… --model bench --connections 32 --seconds 3 [--stream]
Prints a `LoadResult` as JSON; exit status 1 when a response was wrong.
"""

import argparse
import asyncio
import sys
import time
from typing import cast

import httptools
import msgspec
import uvloop

from benchmarks.conversation import NUMBER, WrongAnswer, check, request_body


class LoadResult(msgspec.Struct, kw_only=True):
    """What one run saw. Latencies are microseconds from sending a request to its first byte of body and to its end."""

    responses: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    first_us: list[int] = []
    latency_us: list[int] = []
    texts: list[str] = []
    """The distinct texts: one and the same prompt must give one."""
    failure: str = ""


class Run:
    """What the connections of a run share: the bytes to send, when to stop, and what was measured."""

    def __init__(self, request: bytes, *, stream: bool, deadline_s: float) -> None:
        self._before, self._after = request.split(NUMBER)
        self._number = time.time_ns() // 1000
        self.stream = stream
        self.deadline_s = deadline_s
        self.result = LoadResult()

    def next_request(self) -> bytes:
        """The request with a number of its own."""
        self._number += 1
        return b"%b%012d%b" % (self._before, self._number % 10**12, self._after)

    def wants_more(self) -> bool:
        return not self.result.failure and time.perf_counter() < self.deadline_s

    def record(self, first_s: float, latency_s: float, status: int, body: bytes) -> None:
        result = self.result
        try:
            text = check(status, body, stream=self.stream)
        except WrongAnswer as error:
            self.fail(str(error))
            return
        if text not in result.texts:
            result.texts.append(text)
        result.responses += 1
        result.first_us.append(round(first_s * 1e6))
        result.latency_us.append(round(latency_s * 1e6))

    def fail(self, reason: str) -> None:
        self.result.failure = self.result.failure or reason


class Connection(asyncio.Protocol):
    """One keep-alive connection: sends a request, reads its response, sends the next."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._parts: list[bytes] = []
        self._sent_s = 0.0
        self._first_s = 0.0
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio.Transport, not its type.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts = []
        self._first_s = 0.0
        self._waiting = True
        self._sent_s = time.perf_counter()
        self._transport.write(self._run.next_request())

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._run.fail(f"not HTTP: {error}")
            self._transport.close()

    def on_body(self, data: bytes) -> None:
        if not self._parts:
            self._first_s = time.perf_counter()
        self._parts.append(data)

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        sent_s, first_s, parts, parser = self._sent_s, self._first_s, self._parts, self._parser
        status = parser.get_status_code()
        self._waiting = False
        if not parser.should_keep_alive():
            self._run.fail(f"status {status}: the server ended a keep-alive connection")
        if self._run.wants_more():
            self._send()
        else:
            self._transport.close()
        # After the next request is on its way: the check costs the client, not the server's latency.
        self._run.record(first_s - sent_s, now_s - sent_s, status, b"".join(parts))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._run.fail(f"connection lost before the response ended: {exc}")
        self.closed.set_result(None)


async def load(port: int, key: str, model: str, *, connections: int, seconds: float, stream: bool) -> LoadResult:
    """Runs the load and returns what was seen; `failure` is set when a response was wrong or missing."""
    body = request_body(model, stream=stream)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    cpu_s, started_s = time.process_time(), time.perf_counter()
    run = Run(head.encode() + body, stream=stream, deadline_s=started_s + seconds)
    closed: list[asyncio.Future[None]] = []
    try:
        async with asyncio.timeout(seconds + 30):
            for _ in range(connections):
                _, connection = await loop.create_connection(lambda: Connection(run), "127.0.0.1", port)
                closed.append(connection.closed)
            await asyncio.gather(*closed)
    except TimeoutError:
        run.fail("a response did not end within 30 seconds")
    run.result.elapsed_s = time.perf_counter() - started_s
    run.result.cpu_s = time.process_time() - cpu_s
    return run.result


def main() -> None:
    parser = argparse.ArgumentParser(description="bounded load on a chat completions endpoint of this machine")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    result = uvloop.run(
        load(
            given.port,
            given.key,
            given.model,
            connections=given.connections,
            seconds=given.seconds,
            stream=given.stream,
        )
    )
    sys.stdout.buffer.write(msgspec.json.encode(result))
    sys.exit(1 if result.failure else 0)


if __name__ == "__main__":
    main()
