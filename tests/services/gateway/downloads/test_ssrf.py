"""Nothing reaches what only the platform may reach: by literal, by name, by redirect, by rebinding, in any form.

A real server listens on loopback and counts connections. The settings allow its port and plain HTTP, so that what
keeps a download away from it is the address alone.
"""

import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import uvloop

from services.faults import InvalidRequest
from services.gateway.downloads import Downloader, DownloadSettings
from services.internet.addresses import IPAddress
from tests.fakes.internet import Authority, Internet, Names, Web, answer, redirect
from tests.services.gateway.downloads.conftest import PUBLIC, Worlds

IMAGES = ("image/png",)
SECRET = answer(b"secret")


@pytest.fixture
async def inside() -> AsyncIterator[Web]:
    """A server that only the platform may reach."""
    async with Web().running() as web:
        web.answers["/"] = SECRET
        yield web


def settings(web: Web, hosts: str = "") -> DownloadSettings:
    return DownloadSettings(allow_http=True, ports=f"80,443,{web.port}", allow_private_hosts=hosts)


async def fetched(downloader: Downloader, url: str) -> bytes:
    found = await downloader.fetch(url, max_bytes=1000, timeout_s=5.0, content_types=IMAGES)
    return found.content


async def refused(downloader: Downloader, url: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetched(downloader, url)
    assert caught.value.reason == "invalid_image_url"
    return caught.value.message


LOOPBACK = [
    "127.0.0.1",
    "127.1.2.3",
    "127.0.0.1.",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    "[::1%lo]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ip6-localhost",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "127.0.0.0x1",
    "0",
    "\uff11\uff12\uff17.0.0.1",
    "127\u30020\u30020\u30021",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example",
    "user@127.0.0.1",
    "images.example@127.0.0.1",
    "images.example\\@127.0.0.1",
]


@pytest.mark.parametrize("host", LOOPBACK)
async def test_loopback_in_every_form(inside: Web, host: str) -> None:
    """By the system's own resolver, which knows many of these forms."""
    downloader = Downloader(settings(inside))
    try:
        await refused(downloader, f"http://{host}:{inside.port}/")
        await refused(downloader, f"https://{host}:{inside.port}/")
    finally:
        downloader.close()
    assert inside.connections == 0


CLOSED = ["10.0.0.1", "169.254.169.254", "192.168.1.1", "100.100.100.200", "fd00:ec2::254", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", *CLOSED])
async def test_names_of_closed_addresses(worlds: Worlds, address: str) -> None:
    names = {"rebound.example": [[address]], "mixed.example": [[PUBLIC, address]]}
    async with worlds.open(names=names) as world:
        for host in names:
            message = await refused(world.downloader, f"https://{host}/")
            assert message == f"Failed to download image from https://{host}/."
        assert world.internet.connected == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "rebound.example"])
@pytest.mark.parametrize("port", ["", ":{port}"])
async def test_redirects_inside(worlds: Worlds, inside: Web, host: str, port: str) -> None:
    names = {"images.example": [[PUBLIC]], "rebound.example": [["127.0.0.1"]], "localhost": [["127.0.0.1", "::1"]]}
    async with worlds.open(settings(inside), names=names) as world:
        world.web.answers["/"] = redirect(f"http://{host}{port.format(port=inside.port)}/")
        message = await refused(world.downloader, "https://images.example/")
        assert world.internet.connected == [(PUBLIC, 443)]
    assert message == "Failed to download image from https://images.example/."
    assert inside.connections == 0


async def test_a_resolver_that_changes_its_answer(worlds: Worlds) -> None:
    """The address that was checked is the one that is connected to, whatever the name has become by then."""
    async with worlds.open(names={"images.example": [[PUBLIC], ["127.0.0.1"]]}) as world:
        world.web.answers["/"] = answer(b"public")
        assert await fetched(world.downloader, "https://images.example/") == b"public"
        assert world.names.asked == ["images.example"] and world.internet.connected == [(PUBLIC, 443)]
        await refused(world.downloader, "https://images.example/")
        assert world.names.asked == ["images.example"] * 2 and world.internet.connected == [(PUBLIC, 443)]


async def test_a_resolver_that_changes_its_answer_between_redirects(worlds: Worlds) -> None:
    async with worlds.open(names={"images.example": [[PUBLIC], ["127.0.0.1"]]}) as world:
        world.web.answers["/"] = redirect("/")
        await refused(world.downloader, "https://images.example/")
        assert world.names.asked == ["images.example"] * 2 and world.internet.connected == [(PUBLIC, 443)]


async def test_the_systems_resolver_is_asked_once(inside: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def lookup(host: str, port: None, **options: object) -> list[tuple[object, ...]]:
        asked.append(host)
        address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    internet = Internet({})
    downloader = Downloader(settings(inside), network=internet)
    await refused(downloader, f"http://images.example:{inside.port}/")
    downloader.close()
    assert asked == ["images.example"]
    assert internet.connected == [("8.8.8.8", inside.port)]


async def test_what_is_closed_and_what_is_unreachable_read_alike(inside: Web) -> None:
    names = Names({"closed.example": [["127.0.0.1"]], "dead.example": [["8.8.8.8"]]})
    downloader = Downloader(settings(inside), resolve=names.resolve, network=Internet({}))
    texts = set()
    for host in ("closed", "dead", "no-such"):
        message = await refused(downloader, f"http://{host}.example:{inside.port}/")
        texts.add(message.replace(host, "host"))
    downloader.close()
    assert len(texts) == 1 and inside.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "intranet.example"])
async def test_a_host_that_is_allowed_by_name_is_reached(inside: Web, host: str) -> None:
    async def resolve(name: str) -> list[IPAddress]:
        return [ip_address("127.0.0.1")]

    downloader = Downloader(settings(inside, hosts=f"other.example, {host.upper()}"), resolve=resolve)
    assert await fetched(downloader, f"http://{host}:{inside.port}/") == b"secret"
    for other in {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "x.intranet.example", "2130706433"} - {host}:
        await refused(downloader, f"http://{other}:{inside.port}/")
    inside.answers["/"] = redirect(f"http://127.1.1.1:{inside.port}/")
    await refused(downloader, f"http://{host}:{inside.port}/")
    downloader.close()
    assert inside.connections == 2


def test_on_the_platforms_own_event_loop(worlds: Worlds, authority: Authority) -> None:
    async def run() -> None:
        async with worlds.open() as world:
            world.web.answers["/"] = answer(b"public")
            assert await fetched(world.downloader, "https://images.example/") == b"public"
        async with Web().running() as web:
            web.answers["/"] = SECRET
            downloader = Downloader(settings(web))
            await refused(downloader, f"http://localhost:{web.port}/")
            assert web.connections == 0
            downloader.close()
            downloader = Downloader(settings(web, hosts="localhost"))
            assert await fetched(downloader, f"http://localhost:{web.port}/") == b"secret"
            downloader.close()

    uvloop.run(run())
