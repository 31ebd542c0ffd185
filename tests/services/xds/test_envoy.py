"""A real Envoy does what the control plane says, and goes on when something goes wrong."""

import asyncio
import contextlib
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
from prometheus_client import REGISTRY

from services.xds import certificate
from services.xds.ads import ANSWERS
from services.xds.fleet import Gateway
from tests.cluster.certificates import Authority
from tests.services.rpc.authorities import Secret
from tests.services.xds.edges import Backend, backends, edge, until

CHAT = "/v1/chat/completions"


async def test_what_it_lets_pass_and_what_it_answers_itself(tmp_path: Path) -> None:
    async with backends(2) as behind, edge(tmp_path, behind, max_body_bytes=1000) as (plane, client):
        ports = Counter([(await client.post(CHAT, json={})).json()["port"] for _ in range(30)])
        assert ports.keys() == {backend.port for backend in behind}

        for backend in behind:
            backend.heads.clear()
        await client.post(CHAT, headers={"x-forwarded-for": "192.0.2.1", "x-envoy-max-retries": "9"})
        [head] = behind[0].heads + behind[1].heads
        # What a client says of itself comes before what is known, and what steers Envoy is not taken from it.
        assert re.search(r"\nx-forwarded-for: 192.0.2.1,[0-9a-f.:]+\r\n", head)
        assert "x-envoy-max-retries" not in head

        hidden = await client.get("/metrics")
        assert hidden.status_code == 404
        assert error(hidden) == {
            "message": "There is nothing here.",
            "type": "invalid_request_error",
            "param": None,
            "code": "edge_404",
        }
        large = await client.post(CHAT, content=b"x" * 1001)
        assert (large.status_code, error(large)["code"]) == (413, "request_too_large")
        assert large.headers["x-should-retry"] == "false"
        seen = len(behind[0].heads) + len(behind[1].heads)
        assert (await client.post(CHAT, content=b"x" * 1000)).status_code == 200
        assert len(behind[0].heads) + len(behind[1].heads) == seen + 1

        assert await status_over_http2(plane.url) == 200

        plane.publish()
        await until(lambda: status_is(client, 503))
        none = await client.post(CHAT)
        assert error(none)["type"] == "server_error"
        assert none.headers["retry-after-ms"] == "1000"


async def test_a_gateway_dies_under_load(tmp_path: Path) -> None:
    clients = 8
    async with backends(3) as behind, edge(tmp_path, behind) as (_, client):
        done: Counter[tuple[str, int]] = Counter()
        stopping = asyncio.Event()

        async def calls() -> None:
            while not stopping.is_set():
                for method in ("GET", "POST"):
                    response = await client.request(method, CHAT)
                    done[method, response.status_code] += 1
                    if response.status_code != 200:
                        assert error(response)["type"] == "server_error"

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(calls())
            await asyncio.sleep(1)
            before = done.total()
            await behind[0].kill()
            await asyncio.sleep(2)
            stopping.set()
        assert done.total() > before * 1.5
        # What it had been given and had not answered is lost, unless it may be asked twice.
        assert done["POST", 503] <= clients
        assert done.keys() <= {("GET", 200), ("POST", 200), ("POST", 503)}


async def test_gateways_come_and_go(tmp_path: Path) -> None:
    async with backends(2) as behind, edge(tmp_path, behind[:1]) as (plane, client):
        old, new = behind
        async with client.stream("POST", "/stream") as stream:
            pieces = stream.aiter_bytes()
            await anext(pieces)

            plane.publish(old.gateway, new.gateway)
            await until(lambda: answered_by(client, new))

            plane.publish(old.gateway._replace(draining=True), new.gateway)
            await until(lambda: only(client, new))
            await anext(pieces)

            # It has nothing to say any more about one that is not there, and what it gave away goes on.
            plane.publish(new.gateway)
            await until(lambda: only(client, new))
            await anext(pieces)
            old.let_go.set()
            assert b"".join([piece async for piece in pieces]).endswith(b"piece")

        await old.kill()
        plane.publish(old.gateway, new.gateway)
        new.ready = False
        # Neither is ready now, and then one is better than none.
        assert (await client.post(CHAT)).json()["port"] == new.port


async def test_one_that_is_not_ready_gets_nothing(tmp_path: Path) -> None:
    async with backends(3) as behind, edge(tmp_path, behind) as (_, client):
        behind[0].ready = False
        await until(lambda: only(client, *behind[1:]))


async def test_a_certificate_is_renewed_without_a_word(tmp_path: Path) -> None:
    secret = Secret(tmp_path / "edge", Authority(tmp_path, "ours"))
    async with backends(1) as behind, edge(tmp_path, behind, certificate.read(secret.folder)) as (plane, client):
        pairs = certificate.follow(secret.folder, 0.05)
        await anext(pairs)
        before = await shown(plane.url)
        assert ssl.PEM_cert_to_DER_cert((secret.folder / "tls.crt").read_text()) == before

        async with client.stream("POST", "/stream") as stream:
            pieces = stream.aiter_bytes()
            await anext(pieces)
            secret.renew()
            plane.pair = await asyncio.wait_for(anext(pairs), 30)
            plane.publish(*plane.gateways)

            async def renewed() -> bool:
                return await shown(plane.url) != before

            await until(renewed)
            await anext(pieces)
            behind[0].let_go.set()
            assert b"".join([piece async for piece in pieces]).endswith(b"piece")
        # The connection is as it was.
        assert (await client.post(CHAT)).status_code == 200


async def test_it_goes_on_without_its_control_plane(tmp_path: Path) -> None:
    async with backends(2) as behind, edge(tmp_path, behind[:1]) as (plane, client):
        await plane.stop()
        assert (await client.post(CHAT)).json()["port"] == behind[0].port
        plane.gateways = frozenset([behind[1].gateway])
        await plane.start()
        await until(lambda: only(client, behind[1]))


async def test_what_it_refuses_leaves_it_as_it_was(tmp_path: Path) -> None:
    async with backends(2) as behind, edge(tmp_path, behind[:1]) as (plane, client):
        refused = ANSWERS.labels("listeners", "refused")
        before, settings = refused._value.get(), plane.settings
        plane.settings = settings.__class__(host="no address", http_port=settings.http_port)
        plane.publish(behind[0].gateway)

        async def is_refused() -> bool:
            return bool(refused._value.get() > before)

        await until(is_refused)
        assert (await client.post(CHAT)).json()["port"] == behind[0].port
        # Everything else goes on, and the same is not tried again and again.
        plane.publish(behind[1].gateway)
        await until(lambda: only(client, behind[1]))
        assert refused._value.get() == before + 1
        assert REGISTRY.get_sample_value("modelplane_xds_refusing_envoys", {"kind": "listeners"}) == 1

        plane.settings = settings
        plane.publish(behind[0].gateway)
        await until(lambda: only(client, behind[0]))


async def test_limits_of_an_address_and_of_connections(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"requests_per_s": 1, "burst": 5, "max_connections": 2, "trusted_hops": 1}
    async with backends(1) as behind, edge(tmp_path, behind, **limits) as (plane, client):

        async def call(address: str) -> httpx.Response:
            return await client.post(CHAT, headers={"x-forwarded-for": address})

        statuses = [(await call("192.0.2.1")).status_code for _ in range(8)]
        assert statuses[:5] == [200] * 5
        assert 429 in statuses[5:]
        refused = next(response for response in [await call("192.0.2.1") for _ in range(3)] if response.is_error)
        assert error(refused)["code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "1"
        # Nobody else is held to what one address has used; a network of IPv6 is one.
        assert (await call("192.0.2.2")).status_code == 200
        network = [(await call(f"2001:db8::{host:x}")).status_code for host in range(1, 9)]
        assert 429 in network

        async with httpx.AsyncClient(base_url=plane.url) as second, httpx.AsyncClient(base_url=plane.url) as third:
            assert (await second.get("/", headers={"x-forwarded-for": "192.0.2.3"})).status_code == 200
            with contextlib.suppress(httpx.TransportError):
                raise AssertionError(await third.get("/"))


async def test_requests_stay_in_their_zone_as_far_as_they_can(tmp_path: Path) -> None:
    async with (
        backends(4) as behind,
        edge(tmp_path, behind, zone="a", edge_service="models/edge") as (plane, client),
    ):
        plane.edges = frozenset(Gateway(f"10.0.0.{number}", 8080, zone) for number, zone in enumerate("ab"))
        plane.publish(*(one.gateway._replace(zone=zone) for one, zone in zip(behind, "aabb", strict=True)))
        await until(lambda: only(client, *behind[:2]))
        assert await only(client, *behind[:2])
        await behind[0].kill()
        await behind[1].kill()
        await until(lambda: status_is(client, 200))
        assert await only(client, *behind[2:])


async def test_logs_and_spans_go_to_a_collector(tmp_path: Path) -> None:
    async with collector() as (address, got):
        collectors: dict[str, Any] = {"access_log_collector": address, "trace_collector": address}
        async with backends(1) as behind, edge(tmp_path, behind, **collectors) as (_, client):
            await client.post(CHAT, headers={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"})
            # The gateway's spans are below Envoy's, in the client's trace.
            assert f"traceparent: 00-{'ab' * 16}-" in behind[0].heads[0]
            assert "cd" * 8 not in behind[0].heads[0]

            async def collected() -> bool:
                return bytes.fromhex("ab" * 16) in got["Trace"] and CHAT.encode() in got["Logs"]

            await until(collected)


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, dict[str, bytes]]]:
    """An OTLP collector's address, and everything that it got, by kind."""
    got = {"Logs": b"", "Trace": b""}

    def exporting(kind: str) -> Any:
        async def export(request: bytes, _: Any) -> bytes:
            got[kind] += request
            return b""

        name = f"opentelemetry.proto.collector.{kind.lower()}.v1.{kind}Service"
        return grpc.method_handlers_generic_handler(name, {"Export": grpc.unary_unary_rpc_method_handler(export)})

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([exporting(kind) for kind in got])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", got
    finally:
        await server.stop(0)


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


async def status_is(client: httpx.AsyncClient, status: int) -> bool:
    return (await client.post(CHAT)).status_code == status


async def answered_by(client: httpx.AsyncClient, backend: Backend) -> bool:
    return bool((await client.post(CHAT)).json()["port"] == backend.port)


async def only(client: httpx.AsyncClient, *behind: Backend) -> bool:
    """Whether nobody else answers."""
    answers = [(await client.post(CHAT)).json()["port"] for _ in range(10)]
    return set(answers) <= {backend.port for backend in behind}


async def shown(url: str) -> bytes:
    """The certificate that a new connection gets, where HTTP/2 is what is spoken."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    parsed = httpx.URL(url)
    _, writer = await asyncio.open_connection(parsed.host, parsed.port, ssl=context)
    found = writer.get_extra_info("ssl_object")
    assert found.selected_alpn_protocol() == "h2"
    writer.close()
    der: bytes = found.getpeercert(binary_form=True)
    return der


async def status_over_http2(url: str) -> int:
    """Of GET /, in HTTP/2's own frames."""
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    # Of the static table: GET, /, http; and :authority with a value.
    headers = b"\x82\x84\x86\x41\x01a"
    settings, ended = b"\0\0\0\4\0\0\0\0\0", bytes([0, 0, len(headers), 1, 5, 0, 0, 0, 1])
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + ended + headers)
    async with asyncio.timeout(30):
        while True:
            frame = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(frame[:3], "big"))
            if frame[3] == 1:
                writer.close()
                # Of the static table too: 0x88 is 200.
                return 200 if payload[0] == 0x88 else 0
