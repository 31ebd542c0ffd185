"""The chart's Envoy, as the real one runs it: it asks our control plane with the release's certificate and token, is
ready only when it was told what to do, and tells its clients to leave before it ends."""

import asyncio
import base64
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from services.compose import load_protocol
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from tests.charts.test_chart import TRIAL, Object, rendered
from tests.charts.test_monitoring import ENVOY
from tests.cluster.network import free_port
from tests.services.cluster.api import Slices, endpoint, kubeconfig, serving

BINARY = Path(sys.executable).with_name("envoy")
PROTOCOL = "envoy.service.discovery.v3.ads_pb2:AggregatedDiscoveryService"
# What is named in the listener below is known to protobuf once its module is loaded.
TYPES = "type.googleapis.com/"
MANAGER = TYPES + http_connection_manager_pb2.HttpConnectionManager.DESCRIPTOR.full_name
ROUTER = TYPES + router_pb2.Router.DESCRIPTOR.full_name
START_S = 30.0


def listener(port: int) -> listener_pb2.Listener:
    """Answers everything itself."""
    hosts = [
        {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "directResponse": {"status": 200}}]}
    ]
    manager = {
        "@type": MANAGER,
        "statPrefix": "api",
        "routeConfig": {"virtualHosts": hosts},
        "httpFilters": [{"name": "router", "typedConfig": {"@type": ROUTER}}],
    }
    described = {
        "name": "api",
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}},
        "filterChains": [{"filters": [{"name": "http", "typedConfig": manager}]}],
    }
    return json_format.ParseDict(described, listener_pb2.Listener())


class ControlPlane:
    """Tells one listener, once it knows. `nodes` are those that asked."""

    def __init__(self, port: int) -> None:
        self.knows = asyncio.Event()
        self.nodes: set[str] = set()
        self._port = port

    async def stream_aggregated_resources(
        self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest]
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        async for request in requests:
            self.nodes |= {request.node.id} - {""}
            if request.response_nonce:
                continue
            await self.knows.wait()
            made: list[Message] = []
            if request.type_url.endswith(".Listener"):
                made = [listener(self._port)]
            elif request.type_url.endswith(".ClusterLoadAssignment"):
                made = [endpoint_pb2.ClusterLoadAssignment(cluster_name=name) for name in request.resource_names]
            answer = discovery_pb2.DiscoveryResponse(type_url=request.type_url, version_info="1", nonce="1")
            for message in made:
                answer.resources.add().Pack(message)
            yield answer


class Edge:
    """Envoy of a release, and where its ports are on this machine."""

    def __init__(self, folder: Path, tls: bool, *values: str) -> None:
        self.folder = folder
        self.ports = {port: free_port() for port in (8443, 9000, 9003, 9004, 9901)}
        objects = rendered(
            *TRIAL, "graceSeconds=2", "drainDelaySeconds=1", f"tls.mode={'generated' if tls else 'off'}", *values
        )
        self._named = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        self.pod: Object = self._named["Deployment", "modelplane-envoy"]["spec"]["template"]["spec"]
        for volume in self.pod["volumes"]:
            self._mount(volume)
        self.token = base64.b64decode(self._named["Secret", "modelplane-secrets"]["data"]["rpc-token"]).decode()
        self.inside = folder / "gateway" if tls else None
        if tls:
            self._write(folder / "gateway", self._decoded("modelplane-gateway-tls"))

    def _mount(self, volume: Object) -> None:
        [container] = self.pod["containers"]
        [mount] = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
        folder = self.folder / mount["mountPath"].lstrip("/")
        if "configMap" in volume:
            data = self._named["ConfigMap", volume["configMap"]["name"]]["data"]
            self._write(folder, {name: self._here(text).encode() for name, text in data.items()})
        else:
            keys = [item["key"] for item in volume["secret"].get("items", ())]
            data = self._decoded(volume["secret"]["secretName"])
            self._write(folder, {name: content for name, content in data.items() if not keys or name in keys})

    def _decoded(self, secret: str) -> dict[str, bytes]:
        data = self._named["Secret", secret]["data"]
        return {name: base64.b64decode(content) for name, content in data.items()}

    @staticmethod
    def _write(folder: Path, files: dict[str, bytes]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def _here(self, text: str) -> str:
        text = text.replace("/etc/envoy", str(self.folder / "etc/envoy")).replace("modelplane-xds,", "127.0.0.1,")
        for port, here in self.ports.items():
            text = text.replace(f"port_value: {port}", f"port_value: {here}")
        return text

    def settings(self) -> RpcSettings:
        """Of the process that serves xds."""
        return RpcSettings(listen=f"127.0.0.1:{self.ports[9000]}", token=self.token, tls_folder=self.inside)

    async def get(self, port: int, path: str) -> httpx.Response | None:
        """None where nobody answers."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            try:
                return await client.get(f"http://127.0.0.1:{self.ports[port]}{path}")
            except httpx.TransportError:
                return None

    async def without(self, metrics: Iterable[str]) -> set[str]:
        """Those of them that it does not have."""
        answer = await self.get(9003, "/stats/prometheus")
        assert answer is not None
        return set(metrics) - {line.partition("{")[0].partition(" ")[0] for line in answer.text.splitlines()}

    async def ready(self) -> bool:
        answer = await self.get(9003, "/ready")
        return answer is not None and answer.status_code == 200

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_S):
            while not await self.ready():
                await asyncio.sleep(0.05)

    def _argument(self, text: str) -> str:
        # Where Kubernetes says nothing of zones it is empty.
        text = text.replace("$(POD_NAME)", "envoy-1").replace("$(ZONE)", "")
        return text.replace("/etc/envoy", str(self.folder / "etc/envoy"))

    def variables(self) -> dict[str, str]:
        """Of the process that serves xds, with what is on this machine in place of a pod's."""
        [container] = self._named["Deployment", "modelplane-xds"]["spec"]["template"]["spec"]["containers"]
        given = {one["name"]: one["value"] for one in container["env"] if one["name"].startswith("MODELPLANE_XDS_")}
        self._write(self.folder / "etc/modelplane/edge", self._decoded("modelplane-edge-tls"))
        given = {name: value.replace("/etc/", f"{self.folder}/etc/") for name, value in given.items()}
        return {
            **given,
            "MODELPLANE_XDS_HOST": "127.0.0.1",
            "MODELPLANE_XDS_HTTPS_PORT": str(self.ports[8443]),
            "MODELPLANE_HOME": str(self.folder / "home"),
            "MODELPLANE_RPC_LISTEN": f"127.0.0.1:{self.ports[9000]}",
            "MODELPLANE_RPC_TOKEN": self.token,
            "MODELPLANE_RPC_TLS_FOLDER": str(self.inside),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        [container] = self.pod["containers"]
        arguments = [self._argument(one) for one in container["args"]]
        log = (self.folder / "log").open("wb")
        process = await asyncio.create_subprocess_exec(
            *(str(BINARY), *arguments, "--use-dynamic-base-id", "--concurrency", "1"),
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            log.close()


@asynccontextmanager
async def controlled(edge: Edge) -> AsyncIterator[ControlPlane]:
    """A control plane that the edge can ask, as every service is served."""
    plane = ControlPlane(edge.ports[8443])
    server = RpcServer(edge.settings(), {}, [("xds", load_protocol(PROTOCOL))])
    await server.start()
    server.place("xds", plane)
    await server.serving(True)
    try:
        yield plane
    finally:
        await server.stop(0)


@pytest.mark.parametrize("tls", [True, False])
async def test_it_is_ready_once_it_was_told_what_to_do_and_stays_so(tmp_path: Path, tls: bool) -> None:
    edge = Edge(tmp_path, tls)
    async with edge.running():
        async with controlled(edge) as plane:
            async with asyncio.timeout(START_S):
                while not plane.nodes:
                    await asyncio.sleep(0.05)
            assert plane.nodes == {"envoy-1"}
            assert not await edge.ready()
            plane.knows.set()
            await edge.until_ready()
            answer = await edge.get(8443, "/")
            assert answer is not None and answer.status_code == 200
        await asyncio.sleep(1)
        assert await edge.ready()


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[int]:
    """The port of one that lets nobody in but with a certificate of the release's authority."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_xds(variables: Mapping[str, str], log: Path) -> AsyncIterator[None]:
    """As in its pod."""
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", "serve", "xds"),
            env={**os.environ, **variables},
            stdout=out,
            stderr=out,
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def whole(folder: Path) -> AsyncIterator[tuple[Edge, httpx.AsyncClient]]:
    """An edge that the real xds controls, with a gateway that answers; and a client that trusts its certificate."""
    edge = Edge(folder, tls=True)
    slices = Slices()
    variables = edge.variables()
    assert edge.inside is not None
    async with gateway(edge.inside) as port, serving(slices) as api:
        await slices.put("gateway-1", endpoint("127.0.0.1", "gateway-1"), ports={"http": port})
        variables["MODELPLANE_CLUSTER_KUBECONFIG"] = str(kubeconfig(folder, api).kubeconfig)
        shown = ssl.create_default_context(cafile=variables["MODELPLANE_XDS_CERTIFICATE_FOLDER"] + "/tls.crt")
        async with (
            serve_xds(variables, folder / "xds.log"),
            edge.running(),
            httpx.AsyncClient(
                base_url=f"https://localhost:{edge.ports[8443]}", trust_env=False, verify=shown, timeout=60
            ) as client,
        ):
            await edge.until_ready()
            async with asyncio.timeout(START_S):
                # Gateways are called once they have passed a health check.
                while (await client.get("/readyz")).status_code == 503:
                    await asyncio.sleep(0.1)
            yield edge, client


async def test_a_request_goes_through_what_the_chart_and_the_real_xds_make_of_it(tmp_path: Path) -> None:
    async with whole(tmp_path) as (edge, client):
        answer = await client.get("/v1/models")
        assert (answer.status_code, answer.text) == (200, "/v1/models")
        assert (await client.get("/metrics")).status_code == 404
        async with asyncio.timeout(START_S):
            # Its histograms are merged every few seconds.
            while missing := await edge.without(ENVOY):
                await asyncio.sleep(0.2)
        assert not missing


async def test_who_has_another_token_is_not_told(tmp_path: Path) -> None:
    edge = Edge(tmp_path, tls=True)
    (tmp_path / "etc/envoy/token/rpc-token").write_text("another")
    async with controlled(edge) as plane, edge.running():
        plane.knows.set()
        async with asyncio.timeout(START_S):
            while b"gRPC config stream to xds closed: 16" not in (tmp_path / "log").read_bytes():
                await asyncio.sleep(0.1)
        assert not plane.nodes and not await edge.ready()


def test_the_token_is_in_no_configuration() -> None:
    objects = rendered(*TRIAL)
    [secret] = [one for one in objects if one["metadata"]["name"] == "modelplane-secrets"]
    values = {base64.b64decode(value).decode() for value in secret["data"].values()}
    assert not [
        one["metadata"]["name"]
        for one in objects
        if one["kind"] == "ConfigMap" and any(value in str(one) for value in values)
    ]


async def test_before_it_ends_its_clients_are_told_to_leave_and_what_is_in_flight_has_its_time(tmp_path: Path) -> None:
    edge = Edge(tmp_path, tls=False)
    [container] = edge.pod["containers"]
    hook = container["lifecycle"]["preStop"]["httpGet"]
    assert {"name": hook["port"], "containerPort": 9004} in container["ports"]
    async with controlled(edge) as plane, edge.running():
        plane.knows.set()
        await edge.until_ready()
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{edge.ports[8443]}/"
            assert "connection" not in (await client.get(url)).headers
            started_s = loop.time()
            hooked = asyncio.create_task(edge.get(9004, hook["path"]))
            async with asyncio.timeout(30):
                while await edge.ready():
                    await asyncio.sleep(0.02)
            # It still answers on the connection that is there, for the last time.
            answer = await client.get(url)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert (done := await hooked) is not None and done.status_code == 200
        assert 3 <= loop.time() - started_s < 10


async def test_nothing_but_that_hook_reaches_the_administration(tmp_path: Path) -> None:
    edge = Edge(tmp_path, tls=False)
    async with controlled(edge) as plane, edge.running():
        plane.knows.set()
        await edge.until_ready()
        for port in (9003, 9004):
            for path in ("/config_dump", "/quitquitquit", "/healthcheck/fail"):
                answer = await edge.get(port, path)
                assert answer is not None and answer.status_code == 404, (port, path)
        metrics = await edge.get(9003, "/stats/prometheus")
        assert metrics is not None and "envoy_control_plane_connected_state" in metrics.text
        assert await edge.ready()
