"""Downloads over real connections: what is brought, what is refused, and that nothing is left behind."""

import asyncio
import gzip
import socket

import pytest

from services.faults import InvalidRequest
from services.gateway.downloads import Downloader, DownloadSettings, Fetched
from services.settings import Environment, SettingsError
from tests.fakes.internet import Names, answer, redirect
from tests.services.gateway.downloads.conftest import OTHER, PUBLIC, World, Worlds

IMAGE = b"\x89PNG not really"
URL = "https://images.example/cat.png"


async def refused(world: World, url: str, **bounds: float) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await world.fetch(url, **bounds)  # type: ignore[arg-type]
    assert caught.value.rule.status == 400 and not caught.value.rule.retryable
    return caught.value


async def test_an_image_is_downloaded(worlds: Worlds) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png?size=1&n=%C3%A4"] = answer(IMAGE, "Image/PNG; charset=binary")
        assert await world.fetch("https://Images.Example./cat.png?size=1&n=ä#top") == Fetched(IMAGE, "image/png")
        head = world.web.requests[0]
        assert world.internet.connected == [(PUBLIC, 443)] and world.names.asked == ["images.example"]
    assert world.web.server_names == ["images.example"]
    assert "\r\nhost: images.example\r\n" in head and "\r\naccept-encoding: identity\r\n" in head
    assert "cookie" not in head and "authorization" not in head and "referer" not in head


async def test_the_connection_resolves_nothing(worlds: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*arguments: object, **options: object) -> None:
        raise AssertionError(f"resolved {arguments}")

    async with worlds.open() as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        await world.fetch(URL)
        await world.fetch(f"https://{PUBLIC}/cat.png")
    assert world.web.server_names == ["images.example", None]
    assert world.names.asked == ["images.example"]


async def test_the_next_address_is_tried(worlds: Worlds) -> None:
    async with worlds.open(names={"images.example": [["8.8.8.8", OTHER]]}) as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        await world.fetch(URL)
    assert world.internet.connected == [("8.8.8.8", 443), (OTHER, 443)]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        await world.fetch(URL)
    assert world.internet.connected == [(PUBLIC, 443)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(worlds: Worlds, status: int) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = redirect("../a?b", status)
        world.web.answers["/a?b"] = redirect("https://other.example:443/c", status)
        world.web.answers["/c"] = answer(IMAGE)
        assert (await world.fetch(URL)).content == IMAGE
    assert world.internet.connected == [(PUBLIC, 443), (PUBLIC, 443), (OTHER, 443)]
    assert world.web.server_names == ["images.example", "images.example", "other.example"]


@pytest.mark.parametrize("to", ["/cat.png", "", "http://images.example/", "https://a:b@images.example/", "ftp://x/"])
async def test_redirects_that_lead_nowhere(worlds: Worlds, to: str) -> None:
    async with worlds.open(DownloadSettings(max_redirects=2)) as world:
        world.web.answers["/cat.png"] = redirect(to)
        fault = await refused(world, URL)
        assert world.web.connections <= 3
    assert (fault.reason, fault.message) == ("invalid_image_url", f"Failed to download image from {URL}.")


BAD_URLS = [
    "",
    "cat.png",
    "//images.example/cat.png",
    "http://images.example/cat.png",
    "file:///etc/passwd",
    "ftp://images.example/cat.png",
    "https://",
    "https:///cat.png",
    "https://user@images.example/",
    "https://user:word@images.example/",
    "https://images.example:22/",
    "https://images.example:80443/",
    "https://images.example:0/",
    "https://[::1/",
    "https://im ages.example/",
    "https://images.example\n/",
    "https://images%2eexample/",
    "https://images.example" + "/a" * 5000,
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_what_is_wrong_with_a_url_is_said(worlds: Worlds, url: str) -> None:
    async with worlds.open() as world:
        fault = await refused(world, url)
        assert world.names.asked == [] and world.internet.connected == []
    assert fault.reason == "invalid_image_url" and fault.message.startswith("Invalid image URL: it")
    assert len(fault.message) < 400


async def test_http_and_ports_can_be_allowed(worlds: Worlds) -> None:
    settings = DownloadSettings(allow_http=True, ports="80,8080")
    async with worlds.open(settings, tls=False) as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        await world.fetch("http://images.example/cat.png")
        await world.fetch("http://images.example:8080/cat.png")
        assert [port for _, port in world.internet.connected] == [80, 8080]
        assert "host: images.example:8080\r\n" in world.web.requests[1]
        await refused(world, URL)


@pytest.mark.parametrize(
    "url", ["https://unknown.example/", "https://8.8.8.8/", f"https://[{OTHER}]/", "https://images.example/missing"]
)
async def test_what_cannot_be_reached_is_one_text(worlds: Worlds, url: str) -> None:
    """No such name, nobody there, a certificate for others, a 404: a client cannot tell them apart."""
    async with worlds.open() as world:
        fault = await refused(world, url)
    assert (fault.reason, fault.message) == ("invalid_image_url", f"Failed to download image from {url}.")


async def test_a_certificate_must_name_the_host(worlds: Worlds) -> None:
    async with worlds.open(names={"impostor.example": [[PUBLIC]]}) as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        fault = await refused(world, "https://impostor.example/cat.png")
        assert world.web.requests == []
    assert fault.message.startswith("Failed")


async def test_a_certificate_must_be_signed_by_someone_known(worlds: Worlds) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = answer(IMAGE)
        downloader = Downloader(DownloadSettings(), resolve=world.names.resolve, network=world.internet)
        await refused(world._replace(downloader=downloader), URL)
        downloader.close()
        assert world.web.server_names == ["images.example"] and world.web.requests == []


ANSWERS = [
    (answer(IMAGE, "text/html"), "unsupported_image_media_type"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "unsupported_image_media_type"),
    (answer(b""), "empty_image_file"),
    (answer(b"x" * 1001), "image_file_too_large"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\nx", "image_file_too_large"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + b"x" * 1001, "image_file_too_large"),
    (answer(gzip.compress(IMAGE), headers={"Content-Encoding": "gzip"}), "invalid_image_url"),
    (answer(IMAGE, headers={"Content-Encoding": "identity, br"}), "invalid_image_url"),
    (answer(IMAGE, status="500 Oops"), "invalid_image_url"),
    (answer(IMAGE, status="206 Partial"), "invalid_image_url"),
    (b"HTTP/1.1 101 Upgrade\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "invalid_image_url"),
    (answer(IMAGE)[:-3], "invalid_image_url"),
    (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "invalid_image_url"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid_image_url"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", "invalid_image_url"),
    (b"", "invalid_image_url"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "invalid_image_url"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 5000 + b"\r\n\r\nabcd", "invalid_image_url"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\xff\xfe: 1\r\nContent-Length: 1\r\n\r\nx", "invalid_image_url"),
]


@pytest.mark.parametrize(("raw", "reason"), ANSWERS, ids=range(len(ANSWERS)))
async def test_useless_answers(worlds: Worlds, raw: bytes, reason: str) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = raw
        assert (await refused(world, URL)).reason == reason


async def test_as_much_as_allowed_is_brought(worlds: Worlds) -> None:
    content = bytes(range(256)) * 8000
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(b"1f40\r\n" + content[at : at + 8000] + b"\r\n" for at in range(0, len(content), 8000))
    async with worlds.open() as world:
        world.web.answers["/whole"] = answer(content)
        world.web.answers["/chunked"] = chunked + b"0\r\n\r\n"
        for path in ("whole", "chunked"):
            found = await world.fetch(f"https://images.example/{path}", max_bytes=len(content))
            assert found.content == content
            await refused(world, f"https://images.example/{path}", max_bytes=len(content) - 1)


async def test_an_endless_body_is_cut_off(worlds: Worlds) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with worlds.open() as world:
        world.web.answers["/cat.png"] = endless
        assert (await refused(world, URL, max_bytes=1_000_000)).reason == "image_file_too_large"
        await until_closed(world)
    assert sent < 20_000_000


async def test_a_body_of_crumbs_is_given_up(worlds: Worlds) -> None:
    async with worlds.open() as world:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        world.web.answers["/cat.png"] = head + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
        assert (await refused(world, URL, max_bytes=1_000_000)).reason == "invalid_image_url"


async def slow_head(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.02)


async def slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def slow_redirects(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.15)
    writer.write(redirect("/cat.png"))


async def until_closed(world: World) -> None:
    """The server sees its connections end, so the downloader has let go of them."""
    async with asyncio.timeout(30):
        while world.web.open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("slow", [slow_head, slow_body, slow_redirects])
async def test_the_time_limit_covers_everything(worlds: Worlds, slow: object) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = slow  # type: ignore[assignment]
        fault = await refused(world, URL, timeout_s=0.3)
        assert (fault.reason, fault.message) == ("invalid_image_url", f"Timeout while downloading image from {URL}.")
        await until_closed(world)


async def test_a_handshake_that_never_ends_leaves_nothing_open(worlds: Worlds) -> None:
    async with worlds.open(tls=False) as world:
        fault = await refused(world, URL, timeout_s=0.3)
        assert fault.message.startswith("Timeout") and world.web.connections == 1
        await until_closed(world)


async def test_a_cancelled_download_leaves_nothing_open(worlds: Worlds) -> None:
    async with worlds.open() as world:
        world.web.answers["/cat.png"] = slow_body
        task = asyncio.create_task(world.fetch(URL))
        while not world.web.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_closed(world)


async def test_downloads_wait_for_a_slot(worlds: Worlds) -> None:
    most = 0

    async with worlds.open(DownloadSettings(max_concurrent=2)) as world:

        async def counted(writer: asyncio.StreamWriter) -> None:
            nonlocal most
            most = max(most, world.web.open)
            await asyncio.sleep(0.02)
            writer.write(answer(IMAGE))

        world.web.answers["/cat.png"] = counted
        await asyncio.gather(*(world.fetch(URL) for _ in range(7)))
    assert most == 2 and world.web.connections == 7


def test_settings_that_do_not_fit_are_named() -> None:
    for name, value in (("PORTS", "80,https"), ("ALLOW_PRIVATE_HOSTS", "images.example,0x7f.1")):
        settings = Environment({f"MODELPLANE_DOWNLOADS_{name}": value}).group(DownloadSettings)
        with pytest.raises(SettingsError, match=f"MODELPLANE_DOWNLOADS_{name}"):
            Downloader(settings, resolve=Names({}).resolve)
