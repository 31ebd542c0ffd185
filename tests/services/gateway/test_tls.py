"""The HTTP port with TLS: only who has a certificate of the same authority gets in, and renewals are followed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvloop

from services.gateway.settings import GatewaySettings
from services.rpc import certificates
from services.rpc.certificates import PEER_NAME, Certificates
from tests.cluster.certificates import Authority
from tests.fakes.control import KEY
from tests.services.gateway.conftest import MODEL, Edge, running_edge
from tests.services.rpc.authorities import Secret

URL = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority", "ours")


@pytest.fixture
def secret(tmp_path: Path, authority: Authority) -> Secret:
    return Secret(tmp_path / "gateway", authority)


@asynccontextmanager
async def edge_with(secret: Secret) -> AsyncIterator[Edge]:
    @dataclass
    class Secured(Edge):
        def server_tls(self) -> ssl.SSLContext:
            return Certificates(secret.folder).server_context()

    async with running_edge(GatewaySettings(tls=True), Secured) as edge:
        await edge.add_replica()
        yield edge


class Named(httpx.AsyncHTTPTransport):
    """Asks for the name that the certificates are for, whatever the address."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": PEER_NAME}
        return await super().handle_async_request(request)


@asynccontextmanager
async def proxy(
    edge: Edge, trusted: Authority, shown: Secret | None, *, named: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """A client as the proxy in front is one: it knows the authority and the name, and shows its certificate."""
    context = ssl.create_default_context(cafile=str(trusted.folder / "ca.crt"))
    context.check_hostname = named
    if shown is not None:
        context.load_cert_chain(shown.folder / "tls.crt", shown.folder / "tls.key")
    transport = (Named if named else httpx.AsyncHTTPTransport)(verify=context)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=edge.url, headers=headers, timeout=60, transport=transport) as http:
        yield http


async def completes(http: httpx.AsyncClient) -> None:
    whole = await http.post(URL, json=BODY)
    assert (whole.status_code, whole.json()["object"]) == (200, "chat.completion")
    stream = await http.post(URL, json={**BODY, "stream": True})
    assert stream.text.endswith("data: [DONE]\n\n")
    assert stream.text.count("chat.completion.chunk") > 2


async def refused(edge: Edge, trusted: Authority, shown: Secret | None) -> None:
    async with proxy(edge, trusted, shown) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(URL, json=BODY)


async def test_whoever_has_a_certificate_gets_in(secret: Secret, authority: Authority, tmp_path: Path) -> None:
    async with edge_with(secret) as edge:
        assert edge.url.startswith("https://")
        async with proxy(edge, authority, Secret(tmp_path / "envoy", authority)) as http:
            await completes(http)
            large = {**BODY, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
            assert (await http.post(URL, json=large)).status_code in {200, 400}


async def test_a_proxy_that_names_nobody(secret: Secret, authority: Authority, tmp_path: Path) -> None:
    shown = Secret(tmp_path / "envoy", authority)
    async with edge_with(secret) as edge:
        secret.renew()
        async with proxy(edge, authority, shown, named=False) as http:
            await completes(http)
        secret.trust(Authority(tmp_path / "other", "next"))
        async with proxy(edge, authority, shown, named=False) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/healthz")


async def test_nobody_else_does(secret: Secret, authority: Authority, tmp_path: Path) -> None:
    foreign = Secret(tmp_path / "foreign", Authority(tmp_path / "theirs", "theirs"))
    async with edge_with(secret) as edge:
        await refused(edge, authority, None)
        await refused(edge, authority, foreign)
        async with httpx.AsyncClient(base_url=edge.url.replace("https", "http")) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get("/healthz")


async def test_renewals_are_followed_and_open_connections_stay(
    secret: Secret, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "next")
    old, new = Secret(tmp_path / "old", authority), Secret(tmp_path / "new", other)
    async with edge_with(secret) as edge, proxy(edge, authority, old) as lasting:
        await completes(lasting)
        await refused(edge, authority, new)
        secret.trust(authority, other)
        async with proxy(edge, authority, new) as http:
            await completes(http)
        secret.renew(other)
        await refused(edge, authority, old)
        async with proxy(edge, other, old) as http:
            await completes(http)
        secret.trust(other)
        await refused(edge, other, old)
        async with proxy(edge, other, new) as http:
            await completes(http)
        await completes(lasting)


def test_with_the_event_loop_that_serves(secret: Secret, authority: Authority, tmp_path: Path) -> None:
    """Its TLS is its own."""

    async def serve() -> None:
        async with edge_with(secret) as edge:
            async with proxy(edge, authority, Secret(tmp_path / "envoy", authority)) as http:
                await asyncio.gather(*(completes(http) for _ in range(10)))
            await refused(edge, authority, None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
