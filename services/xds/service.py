"""Gives the Envoys at the edge what they do, and again whenever gateways come or go or a certificate is renewed.

Keeps true: what is told has been checked; while it cannot be made, the Envoys go on with what they have.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address
from typing import Any

from google.protobuf.json_format import ParseError
from prometheus_client import Gauge

from services import telemetry
from services.cluster.access import access
from services.cluster.settings import ClusterSettings
from services.compose import Context
from services.settings import PlatformSettings, SettingsError
from services.xds import certificate
from services.xds.ads import Ads
from services.xds.certificate import Pair
from services.xds.fleet import Fleet, Gateway, PodFleet, StaticFleet, gateway
from services.xds.settings import XdsSettings
from services.xds.snapshot import InconsistentError, check, snapshot

log = telemetry.logger(__name__)

GATEWAYS = Gauge("modelplane_xds_gateways", "Gateways that Envoys are told of", ["draining"])


class Edge:
    """What is known now of all that the Envoys' configuration is made of."""

    def __init__(self, ads: Ads, settings: XdsSettings) -> None:
        self._ads = ads
        self._settings = settings
        self._pair: Pair | None = None
        self._gateways: frozenset[Gateway] | None = None
        self._edges: frozenset[Gateway] = frozenset()

    async def follow_gateways(self, fleet: Fleet) -> None:
        async with aclosing(fleet.follow()) as changes:  # type: ignore[type-var]
            async for gateways in changes:
                self._gateways = gateways
                draining = sum(one.draining for one in gateways)
                GATEWAYS.labels("no").set(len(gateways) - draining)
                GATEWAYS.labels("yes").set(draining)
                log.info("gateways", count=len(gateways), draining=draining)
                self.publish()

    async def follow_edges(self, fleet: Fleet) -> None:
        async with aclosing(fleet.follow()) as changes:  # type: ignore[type-var]
            async for self._edges in changes:
                self.publish()

    async def follow_certificate(self, pairs: AsyncIterator[Pair]) -> None:
        async for pair in pairs:
            self.take(pair)

    def take(self, pair: Pair) -> None:
        self._pair = pair
        self.publish()

    def publish(self) -> None:
        """Unless it is not known yet which gateways there are, or they make no sense."""
        if self._gateways is None:
            return
        try:
            made = snapshot(self._settings, self._gateways, self._pair, self._edges)
            check(made)
        except (InconsistentError, ParseError) as error:
            log.error("what Envoys should be told makes no sense; they keep what they have", error=str(error))
            return
        self._ads.publish(made)


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Ads]:
    settings = context.settings(XdsSettings)
    cluster = context.settings(ClusterSettings)
    fleet = _gateways(settings, context.platform, cluster)
    if settings.gateway_service or settings.edge_service:
        # Said at the start; an API server that is away is waited for.
        await asyncio.to_thread(access, cluster)
    ads = Ads()
    edge = Edge(ads, settings)
    following: list[asyncio.Task[None]] = []
    try:
        if settings.certificate_folder is not None:
            pairs = certificate.follow(settings.certificate_folder, settings.certificate_poll_s)
            edge.take(await anext(pairs))
            following.append(_following("certificate", edge.follow_certificate(pairs)))
        if settings.edge_service:
            edges = PodFleet(settings.edge_service, settings.edge_port_name, cluster)
            following.append(_following("edges", edge.follow_edges(edges)))
        following.append(_following("gateways", edge.follow_gateways(fleet)))
        yield ads
    finally:
        await ads.drain()
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


def _following(what: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that ends with the service; if it ends before, that is a defect, and the Envoys stay as they are."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("nothing is followed any more", what=what, exc_info=task.exception())

    task = asyncio.create_task(coroutine, name=what)
    task.add_done_callback(ended)
    return task


def _gateways(settings: XdsSettings, platform: PlatformSettings, cluster: ClusterSettings) -> Fleet:
    """Raises SettingsError."""
    if settings.gateway_service:
        return PodFleet(settings.gateway_service, settings.gateway_port_name, cluster)
    if settings.gateways:
        return StaticFleet(gateway(text) for text in settings.gateways)
    try:
        here = ip_address(platform.host)
    except ValueError as error:
        raise SettingsError("MODELPLANE_XDS_GATEWAYS: which gateways are the Envoys in front of?") from error
    loopback = "127.0.0.1" if here.version == 4 else "::1"
    return StaticFleet([Gateway(loopback if here.is_unspecified else str(here), platform.port)])
