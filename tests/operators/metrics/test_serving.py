"""The external metrics over real sockets and TLS: what the API server gets, and that nobody else gets anything."""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from operators.kubernetes import connected
from operators.metrics import __main__ as program
from operators.metrics.__main__ import serving
from operators.metrics.cluster import Cluster, ClusterError
from operators.metrics.settings import Settings
from services.settings import SettingsError
from tests.operators.metrics.cluster import NAMESPACE, PlayedCluster, endpoint_slice, page, played

ROOT = "/apis/external.metrics.k8s.io"
FIGURES = f"{ROOT}/v1beta1/namespaces/{NAMESPACE}"
IN_FLIGHT = f"{FIGURES}/modelplane_requests_in_flight?labelSelector=group%3Dgateway"


class Caller:
    """Asks as the front proxy does, unless told otherwise."""

    def __init__(self, cluster: PlayedCluster, ports: tuple[int, int]) -> None:
        self.cluster = cluster
        self.https, self.http = ports
        self.front = cluster.caller(cluster.front, "front-proxy-client")

    async def get(self, path: str, tls: ssl.SSLContext | None = None, method: str = "GET") -> tuple[int, Any]:
        url = f"https://127.0.0.1:{self.https}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url, ssl=tls or self.front) as response:
            return response.status, await response.json()

    async def plain(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.http}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def until(self, status: int, path: str = IN_FLIGHT) -> Any:
        """The document, once the answer has this status."""
        async with asyncio.timeout(30):
            while (got := await self.get(path))[0] != status:
                await asyncio.sleep(0.02)
        return got[1]


def settings(cluster: PlayedCluster, **other: Any) -> Settings:
    values = {
        "listen": "127.0.0.1:0",
        "health_listen": "127.0.0.1:0",
        "tls_folder": cluster.tls,
        "account": cluster.account,
        "server": cluster.url,
        "groups": "gateway=f-gateway",
        "pods_port": cluster.pods_port,
        "interval_s": 0.05,
        "window_s": 0.2,
        "stale_s": 2.0,
    }
    return Settings(**{**values, **other})


@asynccontextmanager
async def running(folder: Path, **other: Any) -> AsyncIterator[Caller]:
    async with played(folder) as cluster:
        cluster.ready("f-gateway", "127.0.0.2", "127.0.0.3")
        cluster.pages = {"127.0.0.2": page(3), "127.0.0.3": page(4.5)}
        async with serving(settings(cluster, **other)) as ports:
            yield Caller(cluster, ports)


async def test_an_autoscaler_gets_the_sum_of_the_ready_pods(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        document = await caller.until(200)
        [item] = document.pop("items")
        assert document == {
            "kind": "ExternalMetricValueList",
            "apiVersion": "external.metrics.k8s.io/v1beta1",
            "metadata": {},
        }
        seen = datetime.fromisoformat(item.pop("timestamp"))
        assert timedelta(seconds=-1) < datetime.now(seen.tzinfo) - seen < timedelta(seconds=3)
        assert item == {
            "metricName": "modelplane_requests_in_flight",
            "metricLabels": {"group": "gateway"},
            "value": "7500m",
        }


async def test_discovery_is_what_the_api_server_aggregates(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        status, version = await caller.get(f"{ROOT}/v1beta1")
        assert (status, version["kind"]) == (200, "APIResourceList")
        assert version["groupVersion"] == "external.metrics.k8s.io/v1beta1"
        by_name = {resource["name"]: resource for resource in version["resources"]}
        assert by_name["modelplane_queued_requests"] == {
            "name": "modelplane_queued_requests",
            "singularName": "",
            "namespaced": True,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }
        status, group = await caller.get(ROOT)
        assert (status, group["kind"], group["preferredVersion"]["version"]) == (200, "APIGroup", "v1beta1")
        assert (await caller.get("/openapi/v2"))[1]["swagger"] == "2.0"
        assert await caller.get("/openapi/v3") == (200, {"paths": {}})
        # Where there is no aggregated discovery, the API server asks for the documents above.
        for path in ("/apis", "/"):
            status, document = await caller.get(path)
            assert (status, document["kind"], document["reason"]) == (404, "Status", "NotFound")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (IN_FLIGHT.replace(NAMESPACE, "other"), 404, "only the figures of namespace models"),
        (IN_FLIGHT.replace("%3Dgateway", "%3Dother"), 404, "no figure"),
        (IN_FLIGHT.replace("in_flight", "seen"), 404, "no figure"),
        (IN_FLIGHT.replace("%3D", "%21%3D"), 400, "not understood"),
        (IN_FLIGHT.partition("?")[0], 400, "group=gateway"),
        (f"{FIGURES}/modelplane_queued_requests?labelSelector=group%3Dgateway", 404, "have no"),
        (FIGURES, 404, "Not Found"),
    ],
)
async def test_what_is_not_served(tmp_path: Path, path: str, status: int, words: str) -> None:
    async with running(tmp_path) as caller:
        await caller.until(200)
        got, document = await caller.get(path)
        assert (got, document["kind"], document["code"]) == (status, "Status", status)
        assert words in document["message"]


async def test_it_only_reads(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        for method in ("PUT", "POST", "DELETE", "PATCH"):
            assert (await caller.get(IN_FLIGHT, method=method))[1]["reason"] == "MethodNotAllowed"


async def test_only_the_front_proxy_gets_in(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        cluster = caller.cluster
        nobody = ssl.create_default_context(cafile=str(cluster.internal.pair.certificate))
        for tls in (nobody, cluster.caller(cluster.authority, "front-proxy-client")):
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await caller.get(IN_FLIGHT, tls)
        # An authority may have signed others too: the name decides.
        status, document = await caller.get(IN_FLIGHT, cluster.caller(cluster.front, "admin"))
        assert (status, document["reason"]) == (403, "Forbidden")


async def test_an_empty_list_of_names_allows_any_of_the_authority(tmp_path: Path) -> None:
    async with played(tmp_path) as cluster:
        cluster.names = []
        cluster.ready("f-gateway", "127.0.0.2")
        cluster.pages = {"127.0.0.2": page(1)}
        async with serving(settings(cluster)) as ports:
            caller = Caller(cluster, ports)
            await caller.until(200)
            assert (await caller.get(IN_FLIGHT, cluster.caller(cluster.front, "another")))[0] == 200


async def test_a_pod_that_stops_answering_withholds_the_figure_until_it_is_back_or_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        await caller.until(200)
        caller.cluster.pages["127.0.0.3"] = ""
        document = await caller.until(503)
        assert document["reason"] == "ServiceUnavailable"
        assert document["message"] == "1 of 2 pods of gateway have no new figure yet"
        caller.cluster.ready("f-gateway", "127.0.0.2")
        assert (await caller.until(200))["items"][0]["value"] == "3"
        caller.cluster.pages["127.0.0.3"] = page(4.5, started=2)
        caller.cluster.ready("f-gateway", "127.0.0.2", "127.0.0.3")
        async with asyncio.timeout(30):
            while (await caller.until(200))["items"][0]["value"] != "7500m":
                await asyncio.sleep(0.02)


async def test_a_cluster_that_is_away_withholds_and_comes_back(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        await caller.until(200)
        caller.cluster.away = True
        assert (await caller.until(503))["message"] == "which pods gateway has is not known"
        assert (await caller.plain("/readyz"))[0] == 200
        caller.cluster.away = False
        await caller.until(200)


async def test_a_renewed_token_certificate_and_authority_are_taken_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "RENEW_S", 0.05)
    async with running(tmp_path) as caller:
        await caller.until(200)
        cluster = caller.cluster
        (cluster.account / "token").write_text("the-next-token")
        shown = await asyncio.to_thread(ssl_certificate, caller)
        cluster.renew()
        async with asyncio.timeout(30):
            while await asyncio.to_thread(ssl_certificate, caller) == shown:
                await asyncio.sleep(0.02)
        await caller.until(200)
        # The authority of the front proxy is replaced: the former's certificates are worth nothing any more.
        former = caller.front
        cluster.front = type(cluster.front)(tmp_path / "front-2", "front-proxy")
        caller.front = cluster.caller(cluster.front, "front-proxy-client")
        async with asyncio.timeout(30):
            while True:
                try:
                    await caller.until(200)
                    break
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.02)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await caller.get(IN_FLIGHT, former)


def ssl_certificate(caller: Caller) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", caller.https), timeout=5) as plain,
        caller.front.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


async def test_health_and_its_own_metrics_are_plain(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        await caller.until(200)
        assert (await caller.plain("/healthz"))[0] == 200
        assert (await caller.plain("/readyz"))[0] == 200
        text = (await caller.plain("/metrics"))[1]
        assert 'modelplane_external_metrics_scrapes_total{group="gateway",outcome="read"}' in text
        assert "modelplane_external_metrics_certificate_expires_timestamp_seconds 1." in text
        assert (await caller.plain(IN_FLIGHT))[0] == 404


async def test_it_asks_for_its_namespace_and_services_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as caller:
        await caller.until(200)
        assert {path.partition("?")[0] for path in caller.cluster.asked} == {
            "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
            f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
        }


async def test_pods_are_counted_once_and_only_while_they_are_ready(tmp_path: Path) -> None:
    async with played(tmp_path) as cluster, connected(cluster.url, cluster.account, 5) as api:
        cluster.slices = [
            endpoint_slice("f-gateway", {"a": "fd00::1"}, "IPv6"),
            endpoint_slice("f-gateway", {"a": "10.0.0.1", "b": "10.0.0.2"}),
            endpoint_slice("f-gateway", {"c": "10.0.0.3"}, ready=False),
            endpoint_slice("f-gateway", {"d": "10.0.0.4"}, terminating=True),
            {**endpoint_slice("f-auth", {}), "endpoints": None},
        ]
        asking = Cluster(api)
        services = {"gateway": "f-gateway", "auth": "f-auth", "billing": "f-gateway"}
        one = {"a": "10.0.0.1", "b": "10.0.0.2"}
        del services["billing"]
        assert await asking.ready_pods(NAMESPACE, services) == {"gateway": one, "auth": {}}
        cluster.away = True
        with pytest.raises(ClusterError, match="answers 503"):
            await asking.front_proxy()


def test_groups_are_pairs() -> None:
    assert Settings(groups="a=f-a, b=f-b").services() == {"a": "f-a", "b": "f-b"}
    for wrong in ("", "a", "a=", "a=b,,"):
        with pytest.raises(SettingsError, match="group=service"):
            Settings(groups=wrong).services()


async def program_in(cluster: PlayedCluster, groups: str) -> asyncio.subprocess.Process:
    given = settings(cluster, groups=groups)
    values = {name: str(getattr(given, name)) for name in given.__struct_fields__}
    variables = {f"MODELPLANE_EXTERNAL_METRICS_{name.upper()}": value for name, value in values.items()}
    command = (sys.executable, "-m", "operators.metrics")
    return await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE
    )


async def test_the_program_says_where_it_serves_and_ends_in_order(tmp_path: Path) -> None:
    async with played(tmp_path) as cluster:
        program = await program_in(cluster, "gateway=f-gateway")
        assert program.stderr is not None
        async with asyncio.timeout(30):
            line = json.loads(await program.stderr.readline())
            assert (line["event"], line["fields"]["groups"]) == ("serving", "gateway=f-gateway")
            program.send_signal(signal.SIGTERM)
            assert await program.wait() == 0


async def test_the_program_ends_with_a_reason_when_it_cannot_serve(tmp_path: Path) -> None:
    async with played(tmp_path) as cluster:
        for groups, away, words in (("gateway", False, "group=service"), ("gateway=f-gateway", True, "answers 503")):
            cluster.away = away
            program = await program_in(cluster, groups)
            async with asyncio.timeout(30):
                _, said = await program.communicate()
            assert program.returncode == 1
            assert words in json.loads(said)["fields"]["error"]
