"""The HTTP edge itself: every answer has its id and OpenAI's form, whatever was asked."""

import asyncio
import json
import re
import socket
from typing import Any

import httpx
import pytest

from services.faults import Fault, Unavailable
from services.gateway.access import Access
from services.gateway.application import Application, Route
from services.gateway.calls import Call
from services.gateway.settings import GatewaySettings
from services.settings import PlatformSettings, SettingsError
from tests.fakes.control import ADMIN_KEY, FakeAuth
from tests.services.gateway.conftest import ALIAS, MODEL, Edge, running_edge
from tests.services.gateway.schemas import assert_matches

URL = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


def assert_refused(response: httpx.Response, status: int, code: str | None) -> None:
    assert response.status_code == status, response.text
    assert_matches("ErrorResponse", response.json())
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])


async def test_refusals(edge: Edge) -> None:
    async with edge.http() as http:
        assert_refused(await http.get("/v1/nothing"), 404, None)
        assert_refused(await http.get("/"), 404, None)
        wrong_method = await http.put(URL)
        assert_refused(wrong_method, 405, "method_not_allowed")
        assert wrong_method.headers["allow"] == "POST, GET"
        assert_refused(await http.post(URL, content=b'{"model": '), 400, None)
        assert_refused(await http.post(URL, content=b"\xff\xfe"), 400, None)
        assert_refused(await http.post(URL, json={**BODY, "model": "other"}), 404, "model_not_found")
        assert_refused(await http.post(URL, json={**BODY, "messages": []}), 400, "empty_array")
        assert_refused(await http.post(URL, json={**BODY, "n": "1"}), 400, "invalid_type")
        too_long = {**BODY, "messages": [{"role": "user", "content": "word " * 2000}]}
        assert_refused(await http.post(URL, json=too_long), 400, "context_length_exceeded")
        for credentials, code in (("Bearer sk-proj-bad", "invalid_api_key"), ("Basic sk-proj-good", None)):
            wrong = await http.post(URL, json=BODY, headers={"authorization": credentials})
            assert_refused(wrong, 401, code)
        admin = await http.post(URL, json=BODY, headers={"authorization": f"Bearer {ADMIN_KEY}"})
        assert_refused(admin, 403, "insufficient_permissions")
        other = await http.post(URL, json=BODY, headers={"openai-organization": "org-2"})
        assert_refused(other, 401, "mismatched_organization")
    assert edge.ratelimit.reserved == {}


async def test_a_wrong_key_is_refused_before_the_body_is_read(edge: Edge) -> None:
    async with edge.http() as http:
        for content in (b"not json", b"x" * 5_000_000):
            wrong = await http.post(URL, content=content, headers={"authorization": "Bearer sk-proj-bad"})
            assert_refused(wrong, 401, "invalid_api_key")


async def test_a_wrong_content_type_does_no_harm(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        response = await http.post(URL, content=json.dumps(BODY), headers={"content-type": "text/plain"})
    assert response.status_code == 200


async def test_body_over_the_limit() -> None:
    async with running_edge(GatewaySettings(max_body_bytes=1000)) as edge:
        await edge.add_replica()

        async def endless(chunks: int) -> Any:
            for _ in range(chunks):
                yield b"x" * 500

        async with edge.http() as http:
            assert_refused(await http.post(URL, content=b"x" * 1001), 413, "request_too_large")
            assert_refused(await http.post(URL, content=b"x" * 3_000_000), 413, "request_too_large")
            assert_refused(await http.post(URL, content=endless(2000)), 413, "request_too_large")
            assert_refused(await http.post(URL, content=endless(2)), 400, None)
            assert (await http.post(URL, json=BODY)).status_code == 200


async def test_a_body_in_pieces_and_hung_up_halfway(edge: Edge) -> None:
    await edge.add_replica()
    host, port = edge.url.removeprefix("http://").split(":")
    body = json.dumps(BODY).encode()
    head = f"POST {URL} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-proj-good\r\n"
    head += f"content-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    for byte in body:
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body[:20])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with edge.http() as http:
        assert (await http.get("/healthz")).status_code == 200


CHUNKED = f"POST {URL} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"


@pytest.mark.parametrize("head", ["GET /", f"GET {URL} HTTP/1.1\r\nuser-agent: ", CHUNKED + "trailer: "])
async def test_a_head_without_end(edge: Edge, head: str) -> None:
    """Nobody is asked for a key before the head is there: what it may hold of memory is bounded for everybody."""
    host, port = edge.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    try:
        async with asyncio.timeout(30):
            for _ in range(100):
                writer.write(b"x" * 65536)
                await writer.drain()
            await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


async def test_a_long_head_and_a_long_body(edge: Edge) -> None:
    await edge.add_replica()
    body = {**BODY, "messages": [{"role": "user", "content": "x" * 1_000_000}]}
    async with edge.http() as http:
        response = await http.post(URL, json=body, headers={"user-agent": "x" * 60_000})
    assert response.status_code == 200


async def test_a_defect_is_hidden_behind_a_500() -> None:
    async def broken(call: Call) -> None:
        raise RuntimeError("secret details")

    application = Application({"/broken": {"GET": Route(broken)}}, Access(FakeAuth()))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        response = await http.get("/broken")
    assert_refused(response, 500, "internal_error")
    assert "secret" not in response.text


async def test_models(edge: Edge) -> None:
    async with edge.http() as http:
        listed = (await http.get("/v1/models")).json()
        assert_matches("ListModelsResponse", listed)
        assert [model["id"] for model in listed["data"]] == [MODEL]
        one = (await http.get(f"/v1/models/{MODEL}")).json()
        assert_matches("Model", one)
        assert one == {"id": MODEL, "object": "model", "created": 1700000000, "owned_by": "tests"}
        for name in ("none", "owner/none", ALIAS):
            assert_refused(await http.get(f"/v1/models/{name}"), 404, "model_not_found")
        assert_refused(await http.get("/v1/models", headers={"authorization": ""}), 401, None)
    async with edge.sdk() as sdk:
        assert (await sdk.models.retrieve(MODEL)).owned_by == "tests"


async def test_operations_need_no_key(edge: Edge) -> None:
    async with httpx.AsyncClient(base_url=edge.url) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.head("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        metrics = await http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain") and "modelplane_requests_total" in metrics.text


async def test_readiness_names_what_is_missing(edge: Edge) -> None:
    async def fine() -> None:
        return None

    async def down() -> None:
        raise Unavailable("not_ready", "It is loading.")

    edge.checks = {"fine": fine, "down": down}
    async with httpx.AsyncClient(base_url=edge.url) as http:
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert response.json()["missing"] == {"down": "It is loading."}
        edge.checks, edge.serving = {"fine": fine}, False
        assert list((await http.get("/readyz")).json()["missing"]) == ["platform"]


async def test_requests_are_counted(edge: Edge) -> None:
    await edge.add_replica()

    async def sample(http: httpx.AsyncClient, series: str) -> float:
        lines = (await http.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(series)), 0.0)

    ok = f'modelplane_requests_total{{model="{MODEL}",operation="chat.completions",status="200"}}'
    tokens = f'modelplane_tokens_total{{kind="output",model="{MODEL}"}}'
    async with edge.http() as http:
        before = await sample(http, ok), await sample(http, tokens)
        await http.post(URL, json=BODY)
        await http.post(URL, json={**BODY, "stream": True})
        assert (await sample(http, ok), await sample(http, tokens)) == (before[0] + 2, before[1] + 10)
        assert await sample(http, "modelplane_requests_in_flight") == 0


async def test_a_port_in_use_is_said_clearly() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        edge = Edge(platform=PlatformSettings(port=port))
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}.*MODELPLANE_PORT"):
            async with edge.build():
                pass


def test_a_fault_that_is_not_in_the_table_is_internal() -> None:
    assert Fault("made_up", "?").rule.status == 500
