"""What goes over the wire, byte by byte: heads are of our own making."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from services.gateway.transport import GatheringProtocol

Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = Callable[[Send], Awaitable[None]]

START = "http.response.start"
BODY = "http.response.body"
JSON = (b"content-type", b"application/json")


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A server that gives every request this answer; its port."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    config = uvicorn.Config(
        application, http=GatheringProtocol, ws="none", lifespan="off", log_config=None, server_header=False
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    running = asyncio.create_task(server._serve([listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


async def said(port: int, request: bytes) -> bytes:
    """What comes back until the server closes the connection; requests that keep it open say so themselves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


def request(method: str = "GET", version: str = "1.1", *headers: str) -> bytes:
    return "\r\n".join([f"{method} / HTTP/{version}", "host: x", *headers, "", ""]).encode()


LAST = "connection: close"


async def whole(send: Send) -> None:
    await send({"type": START, "status": 200, "headers": [JSON, (b"content-length", b"2"), (b"x-request-id", b"r")]})
    await send({"type": BODY, "body": b"{}"})


async def in_pieces(send: Send) -> None:
    await send({"type": START, "status": 200, "headers": [JSON]})
    await send({"type": BODY, "body": b"one", "more_body": True})
    await asyncio.sleep(0.02)
    await send({"type": BODY, "body": b"", "more_body": True})
    await send({"type": BODY, "body": b"three", "more_body": False})


def lines_of(answer: bytes) -> tuple[list[bytes], bytes]:
    """The lines of the head without the date, and what follows."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"date: ")], rest


async def test_a_whole_answer() -> None:
    async with serving(whole) as port:
        answer = await said(port, request("GET", "1.1", LAST))
        assert answer.count(b"\r\ndate: ") == 1
        head = [b"HTTP/1.1 200 OK", b"content-type: application/json", b"content-length: 2", b"x-request-id: r"]
        assert lines_of(answer) == ([*head, LAST.encode()], b"{}")
        # A client of HTTP/1.0 is told that the connection ends, and it does.
        assert lines_of(await said(port, request("GET", "1.0"))) == ([*head, LAST.encode()], b"{}")
        assert lines_of(await said(port, request("HEAD", "1.1", LAST))) == ([*head, LAST.encode()], b"")


async def test_an_answer_without_a_length_goes_in_chunks() -> None:
    async with serving(in_pieces) as port:
        head, body = lines_of(await said(port, request("GET", "1.1", LAST)))
        assert head[2:] == [LAST.encode(), b"transfer-encoding: chunked"]
        assert body == b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"


async def test_the_beginning_of_a_stream_does_not_wait_for_its_first_piece() -> None:
    released = asyncio.Event()

    async def slow(send: Send) -> None:
        await send({"type": START, "status": 200, "headers": [JSON]})
        await released.wait()
        await send({"type": BODY, "body": b"late"})

    async with serving(slow) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
            released.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"4\r\nlate\r\n0\r\n\r\n"
        writer.close()


async def test_requests_one_after_the_other_on_one_connection_and_all_at_once() -> None:
    async with serving(whole) as port:
        answer = await said(port, request() * 20 + request("GET", "1.1", LAST))
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == answer.count(b"\r\n\r\n{}") == 21
        assert answer.count(b"connection: close") == 1


async def test_the_application_closes_the_connection() -> None:
    async def closing(send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": START, "status": 413, "headers": headers})
        await send({"type": BODY, "body": b"no"})

    async with serving(closing) as port:
        answer = await said(port, request() * 2)
        assert lines_of(answer) == (
            [b"HTTP/1.1 413 Request Entity Too Large", b"content-length: 2", b"connection: close"],
            b"no",
        )


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body(status: int) -> None:
    async def empty(send: Send) -> None:
        await send({"type": START, "status": status, "headers": []})
        await send({"type": BODY})

    async with serving(empty) as port:
        head, body = lines_of(await said(port, request("GET", "1.1", LAST)))
        assert head[1:] == [LAST.encode()] and body == b""


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b=c", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_header_that_would_be_two_is_never_sent(value: bytes) -> None:
    async def injected(send: Send) -> None:
        await send({"type": START, "status": 200, "headers": [(b"x-of-a-client", value)]})
        await send({"type": BODY, "body": b"never"})

    async with serving(injected) as port:
        assert await said(port, request()) == b""


async def test_a_body_of_another_length_than_was_said() -> None:
    async def wrong(send: Send) -> None:
        await send({"type": START, "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": BODY, "body": b"four"})

    async with serving(wrong) as port:
        assert b"four" not in await said(port, request())
