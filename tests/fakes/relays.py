"""TLS in front of a server that was built without it: what it decrypts it passes on."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[], Awaitable[Streams]]

# What a PostgreSQL client asks before anything else: its length, and a version that no protocol has.
SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


def server_context(certificate: str, key: str, authority: str | None = None) -> ssl.SSLContext:
    """With an authority, clients must show a certificate that it has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if authority is not None:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def relay(dial: Dial, context: ssl.SSLContext, *, postgres: bool = False) -> AsyncIterator[int]:
    """Gives the port on 127.0.0.1; `postgres` is for clients that ask in the clear whether there is TLS."""
    serving: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        writers.append(writer)
        task.add_done_callback(serving.discard)
        upstream: asyncio.StreamWriter | None = None
        try:
            if postgres:
                if await reader.readexactly(8) != SSL_REQUEST:
                    return
                writer.write(b"S")
                await writer.start_tls(context)
            answers, upstream = await dial()
            await asyncio.gather(_pass_on(reader, upstream), _pass_on(answers, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            if upstream is not None:
                upstream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if postgres else context)
    try:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        # Whose other end is gone without a word, and who would wait for one when the loop is gone too.
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    # One direction that has ended ends both.
    target.close()
