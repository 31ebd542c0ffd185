"""A control plane in this process, a real Envoy that asks it over gRPC, and gateways that remember what they got."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx

from services.compose import load_protocol
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.xds import process
from services.xds.ads import Ads
from services.xds.bootstrap import ControlPlane
from services.xds.certificate import Pair
from services.xds.fleet import Gateway
from services.xds.settings import XdsSettings
from services.xds.snapshot import Snapshot, check, snapshot
from tests.fakes.envoys import TOKEN
from tests.journeys.platform_process import free_port

PROTOCOL = "envoy.service.discovery.v3.ads_pb2:AggregatedDiscoveryService"
WAIT_S = 20.0


class Backend:
    """A gateway as far as Envoy can see: /readyz, and answers that say who gave them.

    `/stream` sends pieces until `let_go` is set."""

    def __init__(self) -> None:
        self.ready = True
        self.heads: list[str] = []
        self.let_go = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def gateway(self) -> Gateway:
        return Gateway("127.0.0.1", self.port)

    @property
    def paths(self) -> list[str]:
        """Of requests other than Envoy's own, in the order of their arrival."""
        return [head.split(" ", 2)[1] for head in self.heads]

    async def kill(self) -> None:
        """As a crash does: every connection is reset, and nothing listens any more."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                path = head.split(" ", 2)[1]
                if path == "/readyz":
                    writer.write(_response("200 OK" if self.ready else "503 Service Unavailable", "{}"))
                    continue
                self.heads.append(head)
                if length := _header(head, "content-length"):
                    await reader.readexactly(int(length))
                if path == "/stream":
                    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    while not self.let_go.is_set():
                        writer.write(b"5\r\npiece\r\n")
                        await writer.drain()
                        await asyncio.sleep(0.02)
                    writer.write(b"0\r\n\r\n")
                else:
                    writer.write(_response("200 OK", json.dumps({"port": self.port})))
                await writer.drain()
        self._writers.discard(writer)
        writer.close()


def _response(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def _header(head: str, name: str) -> str:
    for line in head.split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""


class Plane:
    """The control plane, which can end and start again on the same port."""

    def __init__(self, settings: XdsSettings) -> None:
        self.settings = settings
        self.ads = Ads()
        self.pair: Pair | None = None
        self.gateways: frozenset[Gateway] = frozenset()
        self.edges: frozenset[Gateway] = frozenset()
        self.address = "127.0.0.1:0"
        self.url = ""

    def publish(self, *gateways: Gateway) -> Snapshot:
        """From now on the edge is in front of these."""
        self.gateways = frozenset(gateways)
        made = snapshot(self.settings, self.gateways, self.pair, self.edges)
        check(made)
        self.ads.publish(made)
        return made

    async def start(self) -> None:
        """A process that knows nothing of the one before, on its address."""
        gateways, self.ads = self.gateways, Ads()
        self.publish(*gateways)
        settings = RpcSettings(token=TOKEN, listen=self.address)
        self._server = RpcServer(settings, {}, [("service", load_protocol(PROTOCOL))])
        await self._server.start()
        self._server.place("service", self.ads)
        self.address = self._server.address

    async def stop(self) -> None:
        await self._server.stop(0)


@asynccontextmanager
async def backends(count: int) -> AsyncIterator[list[Backend]]:
    made = [Backend() for _ in range(count)]
    for backend in made:
        await backend.start()
    try:
        yield made
    finally:
        for backend in made:
            backend.let_go.set()
            await backend.kill()


@asynccontextmanager
async def edge(
    folder: Path, behind: list[Backend], pair: Pair | None = None, zone: str = "", **settings: object
) -> AsyncIterator[tuple[Plane, httpx.AsyncClient]]:
    """A running Envoy in front of these, and a client of it."""
    port = free_port()
    ports = {"http_port": 0 if pair else port, "https_port": port if pair else 0}
    plane = Plane(XdsSettings(host="127.0.0.1", **{**ports, **settings}))  # type: ignore[arg-type]
    plane.pair = pair
    plane.url = f"http{'s' if pair else ''}://127.0.0.1:{port}"
    plane.gateways = frozenset(backend.gateway for backend in behind)
    async with AsyncExitStack() as stack:
        await plane.start()
        stack.push_async_callback(plane.stop)
        control = ControlPlane(plane.address, TOKEN)
        await stack.enter_async_context(process.running(folder / "envoy", control, folder / "envoy.log", zone))
        client = httpx.AsyncClient(base_url=plane.url, verify=_unverified(), timeout=60)
        yield plane, await stack.enter_async_context(client)


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Raises TimeoutError when it does not become true."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            await asyncio.sleep(0.05)
