"""The protocol's rules: order, versions, answers, refusals, and that nobody waits for somebody else."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

from services.faults import Unavailable
from services.xds.ads import ANSWERS, Ads, Conversation
from services.xds.certificate import Pair
from services.xds.fleet import Gateway
from services.xds.settings import XdsSettings
from services.xds.snapshot import TYPE_URLS, Snapshot, snapshot

HERE = Gateway("127.0.0.1", 8080)
THERE = Gateway("127.0.0.1", 8081)


def made(*gateways: Gateway, port: int = 8080) -> Snapshot:
    return snapshot(XdsSettings(http_port=port), gateways or [HERE], Pair(b"certificate", b"key"))


def wants(kind: str, *names: str, nonce: str = "", error: str = "") -> DiscoveryRequest:
    request = DiscoveryRequest(type_url=TYPE_URLS[kind], resource_names=names, response_nonce=nonce)
    if error:
        request.error_detail.message = error
    return request


class Envoy:
    """The other end of a conversation, which takes everything but kinds that it is told to refuse."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.names: dict[str, tuple[str, ...]] = {}
        self.told: list[tuple[str, list[str]]] = []

    def asks(self, kind: str, *names: str) -> None:
        self.names[kind] = names
        self.conversation.heard(wants(kind, *names))

    def listens(self, now: Snapshot, refusing: Iterable[str] = ()) -> list[str]:
        """The kinds that it is told until there is nothing more."""
        kinds = []
        while said := self.conversation.say(now):
            kind, response = said
            assert self.conversation.say(now) is None, "it has not answered"
            kinds.append(kind)
            error = "no" if kind in refusing else ""
            answer = self.conversation.heard(wants(kind, *self.names[kind], nonce=response.nonce, error=error))
            assert answer == ("refused" if error else "taken")
            assert len(kinds) < 20, "it goes on for ever"
        return kinds


def connected() -> Envoy:
    envoy = Envoy()
    envoy.asks("listeners")
    envoy.asks("secrets", "certificate")
    envoy.asks("routes", "api", "redirect")
    envoy.asks("endpoints", "gateway", "edge")
    envoy.asks("clusters")
    return envoy


def test_what_is_referred_to_comes_before() -> None:
    assert connected().listens(made()) == ["clusters", "endpoints", "listeners", "routes", "secrets"]


def test_only_what_has_changed_is_told() -> None:
    envoy = connected()
    envoy.listens(made())
    assert envoy.listens(made()) == []
    assert envoy.listens(made(HERE, THERE)) == ["endpoints"]
    # The routes of a listener that is another are waited for, whether they have changed or not.
    assert envoy.listens(made(HERE, THERE, port=80)) == ["listeners", "routes"]


def test_names_are_given_as_they_are_asked_for() -> None:
    envoy = Envoy()
    envoy.asks("endpoints", "edge")
    said = envoy.conversation.say(made())
    assert said
    assert [one.type_url for one in said[1].resources] == [TYPE_URLS["endpoints"]]
    # It takes what it got, and wants more: the version is the same, and yet there is something to tell.
    envoy.conversation.heard(wants("endpoints", "edge", "gateway", nonce=said[1].nonce))
    again = envoy.conversation.say(made())
    assert again
    assert (len(again[1].resources), again[1].version_info) == (2, said[1].version_info)


def test_what_is_overtaken_is_not_answered() -> None:
    envoy = Envoy()
    envoy.asks("endpoints", "gateway")
    said = envoy.conversation.say(made())
    # Sent before it knew of the answer.
    assert envoy.conversation.heard(wants("endpoints", "gateway", "edge")) == ""
    assert envoy.conversation.say(made()) is None
    assert said
    assert envoy.conversation.heard(wants("endpoints", "gateway", "edge", nonce=said[1].nonce)) == "taken"
    assert envoy.conversation.say(made())


def test_what_is_refused_is_not_sent_again_and_the_rest_goes_on() -> None:
    envoy = connected()
    envoy.listens(made())
    assert envoy.listens(made(port=1), refusing=["listeners"]) == ["listeners"]
    assert envoy.conversation.refusing("listeners")
    assert envoy.listens(made(port=1)) == []
    assert envoy.listens(made(HERE, THERE, port=1)) == ["endpoints"]
    assert envoy.listens(made(HERE, THERE, port=2)) == ["listeners", "routes"]
    assert not envoy.conversation.refusing("listeners")


def test_a_kind_of_others() -> None:
    conversation = Conversation()
    request = DiscoveryRequest(type_url="type.googleapis.com/envoy.service.runtime.v3.Runtime")
    assert conversation.heard(request) == ""
    assert conversation.say(made()) is None


@asynccontextmanager
async def stream(ads: Ads) -> AsyncIterator[tuple[asyncio.Queue[DiscoveryRequest], AsyncIterator[DiscoveryResponse]]]:
    """An Envoy's stream: what it says goes in, what it is told comes out when it is read."""
    said: asyncio.Queue[DiscoveryRequest] = asyncio.Queue()

    async def requests() -> AsyncIterator[DiscoveryRequest]:
        while True:
            yield await said.get()

    told = cast("AsyncGenerator[DiscoveryResponse, None]", ads.stream_aggregated_resources(requests()))
    try:
        yield said, told
    finally:
        await told.aclose()


async def test_an_envoy_that_does_not_read_holds_up_nobody() -> None:
    ads = Ads()
    ads.publish(made())
    async with stream(ads) as (stuck, first), stream(ads) as (said, told):
        stuck.put_nowait(wants("endpoints", "gateway"))
        await anext(first)
        said.put_nowait(wants("endpoints", "gateway"))
        before = ANSWERS.labels("endpoints", "taken")._value.get()
        for count in range(20):
            response = await asyncio.wait_for(anext(told), 30)
            said.put_nowait(wants("endpoints", "gateway", nonce=response.nonce))
            await asyncio.sleep(0)
            ads.publish(made(HERE._replace(port=9000 + count)))
        newest = await asyncio.wait_for(anext(told), 30)
        assert ANSWERS.labels("endpoints", "taken")._value.get() == before + 20
        # When it comes back it gets what is newest, and nothing of what has been in between.
        stuck.put_nowait(wants("endpoints", "gateway", nonce="1"))
        assert (await asyncio.wait_for(anext(first), 30)).version_info == newest.version_info


async def test_it_is_ready_when_there_is_something_to_tell() -> None:
    ads = Ads()
    with pytest.raises(Unavailable):
        await ads.ping()
    async with stream(ads) as (said, told):
        said.put_nowait(wants("clusters"))
        waiting = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        ads.publish(made())
        assert (await asyncio.wait_for(waiting, 30)).type_url == TYPE_URLS["clusters"]
        await ads.ping()
        end = asyncio.ensure_future(anext(told, None))
        await ads.drain()
        assert await asyncio.wait_for(end, 30) is None


async def test_the_other_form_of_the_protocol_is_declined() -> None:
    async def requests() -> AsyncIterator[DiscoveryRequest]:
        return
        yield

    with pytest.raises(Unavailable, match="api_type"), suppress(StopAsyncIteration):
        await anext(Ads().delta_aggregated_resources(requests()))
