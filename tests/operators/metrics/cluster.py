"""A cluster as the external metrics see it: its API over TLS with the two documents that are asked for, and pods.

Pods are addresses of loopback, all with one port, each with a page of metrics.
"""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.cluster.certificates import Authority, Pair

TOKEN = "a-service-account's-token"
NAMESPACE = "models"


class PlayedCluster:
    """Made by `played`. `pods` says which addresses are ready; `pages` what the pods answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "cluster", "cluster")
        self.front = Authority(folder / "front", "front-proxy")
        self.internal = Authority(folder / "internal", "internal")
        self.names = ["front-proxy-client"]
        self.slices: list[dict[str, Any]] = []
        self.pages: dict[str, str] = {}
        self.asked: list[str] = []
        self.away = False
        self.url = ""
        self.pods_port = 0
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "token").write_text(TOKEN)
        (self.account / "namespace").write_text(NAMESPACE)
        (self.account / "ca.crt").write_bytes(self.authority.pair.certificate.read_bytes())
        self.tls = folder / "tls"
        self.tls.mkdir()
        self.renew()

    def renew(self) -> None:
        """A new serving certificate, as an issuer writes it."""
        pair = self.internal.issue("serving", "metrics", names=("localhost", "127.0.0.1"))
        (self.tls / "tls.crt").write_bytes(pair.certificate.read_bytes())
        (self.tls / "tls.key").write_bytes(pair.key.read_bytes())

    def caller(self, authority: Authority, name: str) -> ssl.SSLContext:
        """What a client with a certificate of this name comes with."""
        context = ssl.create_default_context(cafile=str(self.internal.pair.certificate))
        pair: Pair = authority.issue(name, name)
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    def ready(self, service: str, *addresses: str) -> None:
        """These are the service's ready pods."""
        self.slices = [piece for piece in self.slices if piece["metadata"]["labels"][LABEL] != service]
        self.slices.append(endpoint_slice(service, {f"uid-{address}": address for address in addresses}))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.path}?{request.query_string}")
        if self.away or request.headers.get("authorization") != f"Bearer {(self.account / 'token').read_text()}":
            return web.json_response({"message": "no"}, status=503 if self.away else 401)
        if request.path.endswith("/endpointslices"):
            return web.json_response({"items": self.slices})
        data = {
            "requestheader-client-ca-file": self.front.pair.certificate.read_text(),
            "requestheader-allowed-names": json.dumps(self.names),
        }
        return web.json_response({"data": data})

    async def page(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        return web.Response(text=self.pages[address], status=200 if self.pages[address] else 503)


LABEL = "kubernetes.io/service-name"


def endpoint_slice(service: str, pods: dict[str, str], family: str = "IPv4", **conditions: bool) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False, **conditions},
            "targetRef": {"kind": "Pod", "uid": uid},
        }
        for uid, address in pods.items()
    ]
    return {"metadata": {"labels": {LABEL: service}}, "addressType": family, "endpoints": endpoints}


def page(in_flight: float, requests: float = 0, started: float = 1) -> str:
    """What a gateway says of itself."""
    return (
        f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n"
        f"# TYPE modelplane_requests_in_flight gauge\nmodelplane_requests_in_flight {in_flight}\n"
        "# TYPE modelplane_requests_total counter\n"
        f'modelplane_requests_total{{operation="chat",model="m",status="200"}} {requests}\n'
    )


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[PlayedCluster]:
    cluster = PlayedCluster(folder)
    pair = cluster.authority.issue("apiserver", "kube-apiserver", names=("localhost", "127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    async with AsyncExitStack() as stack:

        async def serve(handler: Any, host: str, port: int, tls: ssl.SSLContext | None) -> int:
            app = web.Application()
            app.router.add_get("/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
            taken: int = runner.addresses[0][1]
            return taken

        cluster.url = f"https://127.0.0.1:{await serve(cluster.answer, '127.0.0.1', 0, context)}"
        cluster.pods_port = await serve(cluster.page, "127.0.0.2", 0, None)
        await serve(cluster.page, "127.0.0.3", cluster.pods_port, None)
        yield cluster
