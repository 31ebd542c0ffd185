"""Images of a request as clients meet them: data URLs, downloads from a server on loopback, and every refusal."""

import asyncio
import base64
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from services.catalog import Catalog, ModelSpec, VisionSpec
from services.gateway.downloads import DownloadSettings
from services.gateway.settings import GatewaySettings
from tests.fakes.control import KEY
from tests.fakes.internet import Web, answer
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import MODEL, Edge, running_edge, until
from tests.services.gateway.schemas import assert_matches

URL = "/v1/chat/completions"


def png(width: int = 3, height: int = 2, colour: int = 0, padding: int = 0) -> bytes:
    """A whole file, with so many bytes of a comment."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes((colour, 0, 0)) * width) * height if width * height < 10**6 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    comment = chunk(b"tEXt", b"k\0" + b"x" * padding) if padding else b""
    return b"\x89PNG\r\n\x1a\n" + header + comment + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def data_url(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def body(*urls: str, detail: str | None = None, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    images = [
        {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}} for url in urls
    ]
    return {
        "model": model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is this"}, *images]}],
        **fields,
    }


@dataclass
class SeeingEdge(Edge):
    """A gateway whose model sees, and which may download from loopback."""

    downloads: DownloadSettings = field(
        default_factory=lambda: DownloadSettings(
            allow_http=True, allow_private_hosts="127.0.0.1", ports=",".join(map(str, range(1024, 65536))), timeout_s=4
        )
    )
    catalog: Catalog = field(
        default_factory=lambda: Catalog(
            (
                ModelSpec(name=MODEL, vision=VisionSpec(max_images=3, max_pixels=1_000_000)),
                ModelSpec(name="blind", engine="scripted"),
            )
        )
    )


@asynccontextmanager
async def seeing(settings: GatewaySettings | None = None) -> AsyncIterator[SeeingEdge]:
    async with running_edge(settings, SeeingEdge) as edge:
        assert isinstance(edge, SeeingEdge)
        yield edge


@pytest.fixture
async def edge() -> AsyncIterator[SeeingEdge]:
    async with seeing() as edge:
        yield edge


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web().running() as web:
        yield web


async def error(edge: Edge, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with edge.http() as http:
        response = await http.post(URL, json=sent)
    told = response.json()
    assert_matches("ErrorResponse", told)
    return response.status_code, told["error"]


async def test_images_from_everywhere_reach_tokenizer_and_replica(edge: SeeingEdge, web: Web) -> None:
    replica = await edge.add_replica()
    contents = [png(3, 2), png(40, 30, 1), png(7, 9, 2)]
    web.answers["/slow.png"] = _late(answer(contents[0]), 0.2)
    web.answers["/quick.png"] = answer(contents[1])
    urls = [f"http://127.0.0.1:{web.port}/slow.png", f"http://127.0.0.1:{web.port}/quick.png", data_url(contents[2])]
    async with edge.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**body(*urls, detail="low"))
    usage = raw.parse().usage
    assert usage and usage.prompt_tokens_details
    assert usage.prompt_tokens == 3 + 30
    assert_matches("CreateChatCompletionResponse", raw.http_response.json())
    assert raw.http_response.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 30
    (sent,) = replica.requests
    assert [(image.content, image.detail) for image in sent.images] == [(content, "low") for content in contents]
    (rendered,) = edge.tokenizer.rendered
    seen = [part.image for part in rendered.messages[0].parts[1:]]
    assert [(image.width, image.height, image.detail) for image in seen] == [
        (3, 2, "low"),
        (40, 30, "low"),
        (7, 9, "low"),
    ]
    assert len({image.digest for image in seen}) == 3
    request_id = raw.headers["x-request-id"]
    await until(lambda: request_id in edge.billing.usages)
    assert edge.billing.usages[request_id].input_image_tokens == 30
    assert edge.ratelimit.reserved[request_id].input_tokens == 33
    assert edge.ratelimit.settled[request_id] == 33 + 5


async def test_a_stream(edge: SeeingEdge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        stream = await sdk.chat.completions.create(
            **body(data_url(png())), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage and chunks[-1].usage.prompt_tokens == 13


def _late(content: bytes, after_s: float) -> Callable[[asyncio.StreamWriter], Any]:
    async def write(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after_s)
        writer.write(content)

    return write


async def test_the_largest_image_as_a_data_url(edge: SeeingEdge) -> None:
    replica = await edge.add_replica()
    content = png(padding=20 * 1024 * 1024 - 1000)
    async with httpx.AsyncClient(base_url=edge.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30) as http:
        response = await http.post(URL, json=body(data_url(content)))
        assert response.status_code == 200
        refused = await http.post(URL, json=body(data_url(png(padding=20 * 1024 * 1024))))
    assert replica.requests[0].images[0].content == content
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "image_file_too_large")


async def test_a_model_that_sees_nothing_fetches_nothing(edge: SeeingEdge, web: Web) -> None:
    status, told = await error(edge, body(f"http://127.0.0.1:{web.port}/a.png", model="blind"))
    assert (status, told["code"], told["param"]) == (400, "unsupported_value", "messages")
    assert told["message"] == "Invalid content type. image_url is only supported by certain models."
    assert not web.connections and not edge.tokenizer.rendered and not edge.ratelimit.reserved


async def test_too_many_images_are_not_fetched(edge: SeeingEdge, web: Web) -> None:
    status, told = await error(edge, body(*[f"http://127.0.0.1:{web.port}/a.png"] * 4))
    assert (status, told["code"], told["param"]) == (400, "array_above_max_length", "messages")
    assert not web.connections


async def test_an_unknown_model_is_not_found(edge: SeeingEdge, web: Web) -> None:
    status, told = await error(edge, body(f"http://127.0.0.1:{web.port}/a.png", model="nobody"))
    assert (status, told["code"]) == (404, "model_not_found")
    assert not web.connections


async def test_images_that_are_too_large_together() -> None:
    async with seeing(GatewaySettings(max_images_bytes=3000)) as edge:
        await edge.add_replica()
        urls = [data_url(png(padding=1000)), data_url(png(padding=1000)), data_url(png(padding=1000))]
        async with edge.http() as http:
            assert (await http.post(URL, json=body(*urls[:2]))).status_code == 200
        status, told = await error(edge, body(*urls))
    assert (status, told["code"]) == (400, "image_file_too_large") and "3,000" in told["message"]


REFUSED = [
    ("data:image/png;base64,", "empty_image_file"),
    ("data:image/png;base64,!!!!", "invalid_base64_image"),
    ("data:image/tiff;base64,AAAA", "unsupported_image_media_type"),
    ("data:image/png", "invalid_image_url"),
    ("", "invalid_image_url"),
    ("ftp://a.example/a.png", "invalid_image_url"),
    ("https://localhost:8000/a.png", "invalid_image_url"),
    ("https://10.0.0.1:8000/a.png", "invalid_image_url"),
    (data_url(b"BM" + bytes(100)), "invalid_image_format"),
    (data_url(png()[:20]), "image_parse_error"),
    (data_url(png(0, 5)), "image_parse_error"),
    (data_url(png(1001, 1000)), "image_too_large"),
]


@pytest.mark.parametrize(("url", "code"), REFUSED)
async def test_what_is_refused(edge: SeeingEdge, url: str, code: str) -> None:
    status, told = await error(edge, body(data_url(png()), url))
    assert (status, told["code"], told["param"], told["type"]) == (400, code, "messages", "invalid_request_error")
    assert not edge.tokenizer.rendered and not edge.billing.usages


async def test_the_format_is_what_the_bytes_say(edge: SeeingEdge) -> None:
    replica = await edge.add_replica()
    async with edge.http() as http:
        for content_type in ("image/jpg", "image/webp"):
            assert (await http.post(URL, json=body(data_url(png(), content_type)))).status_code == 200
    assert len(replica.requests) == 2


async def test_a_download_that_fails_gives_up_the_others(edge: SeeingEdge, web: Web) -> None:
    web.answers["/never.png"] = _late(b"", 60)
    began = time.monotonic()
    urls = [f"http://127.0.0.1:{web.port}/never.png", f"http://127.0.0.1:{web.port}/missing.png"]
    status, told = await error(edge, body(*urls))
    assert (status, told["code"]) == (400, "invalid_image_url")
    assert told["message"] == f"Failed to download image from {urls[1]}."
    assert time.monotonic() - began < 3.5


async def test_a_hang_up_ends_the_download(edge: SeeingEdge, web: Web) -> None:
    closed = asyncio.Event()

    async def hold(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nX: y\r\n" if not held else b"X: y\r\n")
            held.append(1)
            await writer.drain()
        closed.set()

    held: list[int] = []
    web.answers["/held.png"] = hold
    async with edge.http() as http:
        hurried = httpx.Timeout(30, read=0.5)
        with pytest.raises(httpx.ReadTimeout):
            await http.post(URL, json=body(f"http://127.0.0.1:{web.port}/held.png"), timeout=hurried)
    await until(lambda: web.open == 0)
    assert not edge.tokenizer.rendered and not edge.billing.usages


async def test_images_are_not_loaded_again_when_a_replica_is_lost(edge: SeeingEdge, web: Web) -> None:
    dying = FakeReplica()
    dying.dies_after = 0
    await edge.add_replica(dying)
    living = await edge.add_replica()
    content = png()
    web.answers["/a.png"] = answer(content)
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as sdk:
        for _ in range(2):
            await sdk.chat.completions.create(**body(f"http://127.0.0.1:{web.port}/a.png"))
    assert dying.requests or living.requests
    assert all(request.images[0].content == content for request in (*dying.requests, *living.requests))
    assert web.connections == 2
