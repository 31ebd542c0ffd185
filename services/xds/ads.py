"""Envoy's aggregated discovery: each Envoy has one stream, on which it gets every kind of resource in order.

What it keeps true:

- An Envoy gets what is newest and never what has been overtaken: nothing queues for one that is slow, and none waits
  for another.
- What refers to something else comes after it: the next kind is sent when the Envoy has answered to the one before.
- What an Envoy has refused is not sent to it again until it is another; it keeps what it had, and all else goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from prometheus_client import Counter, Gauge

from services import telemetry
from services.faults import Unavailable
from services.xds.snapshot import TYPE_URLS, Snapshot

log = telemetry.logger(__name__)

ENVOYS = Gauge("modelplane_xds_envoys", "Envoys that are connected")
PUSHES = Counter("modelplane_xds_pushes", "Sets of resources that were sent to an Envoy", ["kind"])
ANSWERS = Counter(
    "modelplane_xds_answers", "What Envoys said to them: taken, or refused, which needs a person", ["kind", "answer"]
)
REFUSING = Gauge("modelplane_xds_refusing_envoys", "Envoys that go on with something older, having refused", ["kind"])
AGE = Gauge("modelplane_xds_version_age_seconds", "Time since there was something new of this kind", ["kind"])

# Of these an Envoy gets all that there are; of the others what it names.
_WHOLE: Final = frozenset(("clusters", "listeners"))
# What an Envoy has to hear again when the other was given: it waits for the endpoints of a cluster that has changed.
_FOLLOWED: Final = (("clusters", "endpoints"), ("listeners", "routes"))
KINDS_BY_URL: Final = {url: kind for kind, url in TYPE_URLS.items()}


class Subscription:
    """What one Envoy wants of one kind, and what it has of it."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.nonce = ""
        # What was sent last; the Envoy has not said yet whether it takes it while `waiting`.
        self.version = ""
        self.waiting = False
        self.refused = False
        # Whether the next is due although the version may be the same.
        self.due = True


class Conversation:
    """One Envoy's stream, without the stream: what it said goes in, what it is told next comes out. Pure."""

    def __init__(self) -> None:
        self.node = ""
        self._subscriptions: dict[str, Subscription] = {}
        self._sent = 0

    def heard(self, request: DiscoveryRequest) -> str:
        """Takes what the Envoy says; gives its answer to what it was sent: "taken", "refused", or "" for none."""
        self.node = self.node or request.node.id
        kind = KINDS_BY_URL.get(request.type_url)
        if kind is None:
            # Of a kind that we have nothing of; Envoy goes on without.
            return ""
        known = self._subscriptions.setdefault(kind, Subscription())
        if request.response_nonce != known.nonce:
            # It says nothing about what was sent last: an answer to that is on its way.
            return ""
        names = frozenset(request.resource_names)
        if names != known.names:
            known.names, known.due = names, True
        if not known.waiting:
            return ""
        known.waiting, known.refused = False, request.HasField("error_detail")
        if not known.refused:
            for first, second in _FOLLOWED:
                if kind == first and second in self._subscriptions:
                    self._subscriptions[second].due = True
        return "refused" if known.refused else "taken"

    def say(self, snapshot: Snapshot) -> tuple[str, DiscoveryResponse] | None:
        """The kind and the resources that the Envoy is to be told next; None while there are none, or it has to answer
        first."""
        for kind in snapshot._fields:
            known = self._subscriptions.get(kind)
            if known is None:
                continue
            if known.waiting:
                return None
            resources = snapshot.of(kind)
            if not known.due and known.version == resources.version:
                continue
            self._sent += 1
            known.nonce, known.version = str(self._sent), resources.version
            known.due, known.waiting = False, True
            return kind, DiscoveryResponse(
                type_url=TYPE_URLS[kind],
                version_info=resources.version,
                nonce=known.nonce,
                resources=[
                    packed for name, packed in resources.packed.items() if kind in _WHOLE or name in known.names
                ],
            )
        return None

    def refusing(self, kind: str) -> bool:
        known = self._subscriptions.get(kind)
        return known is not None and known.refused


class Ads:
    """The protocol AggregatedDiscoveryService. `publish` gives it what Envoys are told from now on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._snapshot: Snapshot | None = None
        self._conversations: dict[Conversation, asyncio.Event] = {}
        self._changed_at: dict[str, float] = {}
        self._ended = False
        ENVOYS.set_function(lambda: len(self._conversations))
        for kind in TYPE_URLS:
            AGE.labels(kind).set_function(lambda kind=kind: clock() - self._changed_at.get(kind, clock()))  # type: ignore[misc]
            REFUSING.labels(kind).set_function(
                lambda kind=kind: sum(one.refusing(kind) for one in self._conversations)  # type: ignore[misc]
            )
        self._clock = clock

    def publish(self, snapshot: Snapshot) -> None:
        """To all Envoys. The names of clusters are the same as before in all that one process publishes: only then is
        the order of kinds right for what goes as well as for what comes."""
        for kind in TYPE_URLS:
            if self._snapshot is None or self._snapshot.of(kind).version != snapshot.of(kind).version:
                self._changed_at[kind] = self._clock()
        self._snapshot = snapshot
        self._wake()

    async def ping(self) -> None:
        """Raises Unavailable while there is nothing to tell."""
        if self._snapshot is None:
            raise Unavailable("not_ready", "It is not known yet which gateways there are.", retry_after_ms=1000)

    async def drain(self) -> None:
        """Ends the streams: the Envoys go on as they are, and look for another control plane."""
        self._ended = True
        self._wake()

    async def stream_aggregated_resources(
        self, requests: AsyncIterator[DiscoveryRequest], /
    ) -> AsyncIterator[DiscoveryResponse]:
        """Until the Envoy leaves. Each waits for what it takes itself: its stream's flow control holds up it alone."""
        conversation, news = Conversation(), asyncio.Event()
        listening = asyncio.create_task(self._listen(conversation, requests, news))
        self._conversations[conversation] = news
        try:
            while not listening.done() and not self._ended:
                news.clear()
                while self._snapshot is not None and (said := conversation.say(self._snapshot)):
                    kind, response = said
                    PUSHES.labels(kind).inc()
                    yield response
                await news.wait()
            if listening.done() and not listening.cancelled():
                listening.result()
        finally:
            del self._conversations[conversation]
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            log.info("an Envoy has left", node=conversation.node)

    async def delta_aggregated_resources(self, requests: AsyncIterator[Any], /) -> AsyncIterator[Any]:
        """Not offered: an edge's resources are few, and are sent as a whole. Envoys are to ask with `GRPC`."""
        raise Unavailable("service_unavailable", "Only the state of the world is offered: set api_type to GRPC.")
        yield

    async def _listen(
        self, conversation: Conversation, requests: AsyncIterator[DiscoveryRequest], news: asyncio.Event
    ) -> None:
        try:
            async for request in requests:
                if not conversation.node:
                    log.info("an Envoy has come", node=request.node.id, zone=request.node.locality.zone)
                if answer := conversation.heard(request):
                    kind = KINDS_BY_URL[request.type_url]
                    ANSWERS.labels(kind, answer).inc()
                    if answer == "refused":
                        log.error(
                            "an Envoy refuses what it is told and goes on with what it had",
                            node=conversation.node,
                            kind=kind,
                            error=request.error_detail.message,
                        )
                news.set()
        finally:
            news.set()

    def _wake(self) -> None:
        for news in self._conversations.values():
            news.set()
