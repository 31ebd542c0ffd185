"""GET /metrics and /healthz of a process that has no HTTP otherwise.

It answers in the process's own event loop: a /healthz that is late says that the loop is. Who asks comes from inside
the cluster, so there is no key; nothing but these two paths is here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from services import telemetry

log = telemetry.logger(__name__)

# A head is a line and a few headers.
MOST_HEAD_BYTES: Final = 16 * 1024
READ_S: Final = 5.0
_TEXT: Final = "text/plain; charset=utf-8"


@asynccontextmanager
async def monitored(listen: str) -> AsyncIterator[str]:
    """Listens on `host:port`; gives the address, with the port that was taken for port 0. Raises OSError."""
    host, _, port = listen.rpartition(":")
    try:
        server = await asyncio.start_server(_answer, host.strip("[]"), int(port), limit=MOST_HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot listen on {listen}: {error}; choose another MODELPLANE_TELEMETRY_LISTEN") from error
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request a connection: it is asked a few times a minute."""
    try:
        async with asyncio.timeout(READ_S):
            head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = _response(head.split(b"\r\n", 1)[0].split())
            writer.write(
                f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
            )
            writer.write(b"" if head.startswith(b"HEAD ") else body)
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # Whoever asked has gone, or does not speak HTTP.
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _response(words: list[bytes]) -> tuple[str, str, bytes]:
    """Status, content type and body for a request's first line."""
    match words:
        case [b"GET" | b"HEAD", path, _]:
            match path.split(b"?", 1)[0]:
                case b"/metrics":
                    return "200 OK", telemetry.EXPOSITION_TYPE, telemetry.exposition()
                case b"/healthz":
                    return "200 OK", _TEXT, b"ok\n"
            return "404 Not Found", _TEXT, b"there are /metrics and /healthz\n"
        case [_, _, _]:
            return "405 Method Not Allowed", _TEXT, b"GET only\n"
    return "400 Bad Request", _TEXT, b"not HTTP\n"
