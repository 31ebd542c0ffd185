"""A real Envoy as somebody else would run one: static configuration, an upstream that says what it was sent, and our
services asked over gRPC with the token that they want."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from services.compose import load_protocol
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.journeys.platform_process import free_port

BINARY = Path(sys.executable).with_name("envoy")
TOKEN = "the token between services"
START_S = 20.0

Json = Mapping[str, Any]


@asynccontextmanager
async def offered(service: object, protocol: str) -> AsyncIterator[RpcServer]:
    """What answers `protocol` (`module:Service`), over gRPC until the block is left or the server stopped."""
    server = RpcServer(RpcSettings(token=TOKEN), {}, [("service", load_protocol(protocol))])
    await server.start()
    server.place("service", service)
    await server.serving(True)
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """The port of a server that answers every request with its headers, as JSON."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")[1:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = json.dumps(headers).encode()
                start = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(start.encode() + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def cluster(name: str, port: int, *, grpc: bool = False) -> Json:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "30s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if grpc:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return made


def asked(name: str) -> Json:
    """The gRPC service behind the cluster of this name, with our token."""
    return {
        "envoy_grpc": {"cluster_name": name},
        "timeout": "30s",
        "initial_metadata": [{"key": "modelplane-token", "value": TOKEN}],
    }


def configuration(listen: int, route: Json, filters: Sequence[Json], clusters: Sequence[Json]) -> Json:
    """Everything on one port goes to the cluster `upstream`, through the filters."""
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "test",
        "use_remote_address": True,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, **route}],
                }
            ]
        },
        "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": router}],
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": listen}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": clusters,
        }
    }


@asynccontextmanager
async def proxied(folder: Path, route: Json, filters: Sequence[Json], clusters: Sequence[Json]) -> AsyncIterator[str]:
    """The address of a running Envoy in front of the upstream, as a URL without a path."""
    async with upstream() as upstream_port:
        port = free_port()
        everything = [cluster("upstream", upstream_port), *clusters]
        config = folder / "envoy.json"
        config.write_text(json.dumps(configuration(port, route, filters, everything)))
        with (folder / "envoy.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(BINARY),
                *(
                    "--config-path",
                    str(config),
                    "--use-dynamic-base-id",
                    "--concurrency",
                    "1",
                    "--log-level",
                    "warning",
                ),
                stdout=log,
                stderr=log,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_answered(url, process, folder / "envoy.log")
            yield url
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _until_answered(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(START_S), httpx.AsyncClient() as client:
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"Envoy ended:\n{log.read_text()}")
            with suppress(httpx.TransportError):
                await client.get(url)
                return
            await asyncio.sleep(0.05)
