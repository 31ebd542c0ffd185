"""What every operator's process has: pages for the kubelet and for Prometheus, and an end when it is told to."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from services import telemetry


def stopping() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    return told


def health(state: Callable[[], tuple[bool, str]]) -> web.Application:
    """/healthz, /metrics, and /readyz by `state`: whether the process is ready, and a word on it."""

    async def alive(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(request: web.Request) -> web.Response:
        good, word = state()
        return web.Response(status=200 if good else 503, text=f"{word}\n")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=telemetry.exposition(), headers={"content-type": telemetry.EXPOSITION_TYPE})

    app = web.Application()
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    return app


@asynccontextmanager
async def listening(app: web.Application, where: str, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves at `where`, a host:port or :port, for the length of a block, and gives the port. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        host, _, port = where.rpartition(":")
        await web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
