"""The service: what it follows becomes what Envoys are told, and nonsense does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from google.protobuf.json_format import MessageToDict

from services.cluster import slices
from services.cluster.settings import ClusterSettings
from services.cluster.slices import Address
from services.compose import Platform
from services.settings import Environment, SettingsError
from services.xds import certificate
from services.xds.ads import Ads
from services.xds.fleet import Gateway, PodFleet, StaticFleet, gateway
from services.xds.service import Edge
from services.xds.settings import XdsSettings
from services.xds.snapshot import TYPE_URLS
from tests.cluster.certificates import Authority
from tests.services.rpc.authorities import Secret


def test_where_a_gateway_is() -> None:
    assert gateway("10.0.0.1:8080") == Gateway("10.0.0.1", 8080)
    assert gateway("[fd00::1]:8080") == Gateway("fd00::1", 8080)
    for text in ("gateway:8080", "10.0.0.1", "10.0.0.1:http"):
        with pytest.raises(SettingsError, match="MODELPLANE_XDS_GATEWAYS"):
            gateway(text)


async def test_pods_that_end_are_draining_and_those_that_are_not_ready_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def follow(*what: object) -> AsyncIterator[frozenset[Address]]:
        asked.append(what)
        yield frozenset(
            [
                Address("10.0.0.1", 8080, "a", ready=True, serving=True, terminating=False),
                Address("10.0.0.2", 8080, "b", ready=False, serving=True, terminating=True),
                Address("10.0.0.3", 8080, "b", ready=False, serving=False, terminating=True),
                Address("10.0.0.4", 8080, "b", ready=False, serving=False, terminating=False),
            ]
        )

    monkeypatch.setattr(slices, "follow", follow)
    fleet = PodFleet("models/gateway", "http", ClusterSettings())
    [found] = [one async for one in fleet.follow()]
    assert found == {Gateway("10.0.0.1", 8080, "a"), Gateway("10.0.0.2", 8080, "b", draining=True)}
    assert asked == [("models", "gateway", "http", ClusterSettings())]
    for name in ("gateway", "/gateway", "models/"):
        with pytest.raises(SettingsError, match="namespace/name"):
            PodFleet(name, "http", ClusterSettings())


async def told(ads: Ads, kind: str, *names: str) -> list[dict[str, object]]:
    """What an Envoy that comes now gets of a kind."""

    async def requests() -> AsyncIterator[DiscoveryRequest]:
        yield DiscoveryRequest(type_url=TYPE_URLS[kind], resource_names=names)
        await asyncio.Event().wait()

    async with aclosing(ads.stream_aggregated_resources(requests())) as responses:  # type: ignore[type-var]
        response = await asyncio.wait_for(anext(responses), 30)
        return [MessageToDict(one) for one in response.resources]


async def test_nonsense_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    ads = Ads()
    edge = Edge(ads, XdsSettings())
    twice = [Gateway("127.0.0.1", 1, "a"), Gateway("127.0.0.1", 1, "b")]
    for gateways in (twice[:1], twice):
        following = asyncio.create_task(edge.follow_gateways(StaticFleet(gateways)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    [assignment] = await told(ads, "endpoints", "gateway")
    assert len(assignment["endpoints"]) == 1  # type: ignore[arg-type]
    assert "makes no sense" in caplog.text


async def test_a_renewal_is_given_when_it_is_whole(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "edge", Authority(tmp_path, "ours"))
    async with aclosing(certificate.follow(secret.folder, 0.01)) as pairs:  # type: ignore[type-var]
        first = await anext(pairs)
        other = Secret(tmp_path / "other", Authority(tmp_path / "theirs", "theirs"))
        key, key_file = (secret.folder / "tls.key").read_bytes(), secret.folder / "..data" / "tls.key"
        key_file.write_bytes((other.folder / "tls.key").read_bytes())
        following = asyncio.ensure_future(anext(pairs))
        await asyncio.sleep(0.05)
        assert not following.done()
        key_file.write_bytes(key)
        secret.renew()
        assert await asyncio.wait_for(following, 30) != first


async def test_it_is_served_from_its_row(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "edge", Authority(tmp_path, "ours"))
    variables = {
        "MODELPLANE_HOME": str(tmp_path),
        "MODELPLANE_PORT": "8123",
        "MODELPLANE_XDS_CERTIFICATE_FOLDER": str(secret.folder),
        "MODELPLANE_XDS_CERTIFICATE_POLL_S": "0.01",
    }
    async with Platform(["xds"], Environment(variables)) as platform:
        ads = platform.objects["xds"]
        assert isinstance(ads, Ads)
        # Without a word about it, that of this process.
        [assignment] = await told(ads, "endpoints", "gateway")
        assert "8123" in str(assignment)
        before = await told(ads, "secrets", "certificate")
        secret.renew()
        async with asyncio.timeout(30):
            while await told(ads, "secrets", "certificate") == before:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"MODELPLANE_XDS_CERTIFICATE_FOLDER": "/nowhere"}, "tls.crt and tls.key"),
        ({"MODELPLANE_XDS_GATEWAYS": "gateway:80"}, "no IP address"),
        ({"MODELPLANE_HOST": "gateway.example"}, "which gateways"),
        (
            {"MODELPLANE_XDS_GATEWAY_SERVICE": "models/gateway", "MODELPLANE_CLUSTER_ACCOUNT": "/nowhere"},
            "Kubernetes",
        ),
    ],
)
async def test_what_cannot_be_used_is_said_at_the_start(
    tmp_path: Path, variables: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        async with Platform(["xds"], Environment({"MODELPLANE_HOME": str(tmp_path), **variables})):
            raise AssertionError("it has started")
