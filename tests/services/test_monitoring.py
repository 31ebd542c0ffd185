"""GET /metrics of a process that has no HTTP otherwise, and whatever else may come to its port."""

import asyncio
import socket

import httpx
import pytest

from services import telemetry
from services.monitoring import READ_S, monitored


async def test_metrics_and_health() -> None:
    async with monitored("127.0.0.1:0") as address, httpx.AsyncClient(base_url=f"http://{address}") as http:
        metrics = await http.get("/metrics", params={"name[]": "x"})
        assert metrics.status_code == 200
        assert metrics.headers["content-type"] == telemetry.EXPOSITION_TYPE
        assert "modelplane_" in metrics.text and metrics.text.endswith("\n")
        health = await http.get("/healthz")
        assert (health.status_code, health.text) == (200, "ok\n")
        head = await http.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 100
        assert (await http.get("/")).status_code == 404
        assert (await http.post("/metrics", content=b"x")).status_code == 405


@pytest.mark.parametrize("said", [b"hello\r\n\r\n", b"x" * 100_000, b"GET /met", b""])
async def test_what_is_not_http_harms_nobody(said: bytes) -> None:
    async with monitored("127.0.0.1:0") as address:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(READ_S + 5):
            answer = b""
            while chunk := await read(reader):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 400") == said.startswith(b"hello")
        writer.close()
        async with httpx.AsyncClient(base_url=f"http://{address}") as http:
            assert (await http.get("/healthz")).status_code == 200


async def read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1000)
    except ConnectionResetError:
        return b""


async def test_a_taken_port_says_what_to_set() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for listen in (f"127.0.0.1:{taken.getsockname()[1]}", "nonsense"):
            with pytest.raises(OSError, match="MODELPLANE_TELEMETRY_LISTEN"):
                async with monitored(listen):
                    pass
