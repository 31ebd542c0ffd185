"""Which gateways there are: those that the settings name, or the pods of a Kubernetes Service.

What it keeps true: a gateway that ends but still answers is there as draining, so that its connections are not cut; one
that is not ready is not there.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from services.cluster.settings import ClusterSettings
from services.settings import SettingsError


class Gateway(NamedTuple):
    """Where a gateway answers. `zone` is "" where nobody is in one; a draining one gets no new requests."""

    address: str
    port: int
    zone: str = ""
    draining: bool = False


class Fleet(Protocol):
    """A set of gateways (or of Envoys) that changes."""

    def follow(self) -> AsyncIterator[frozenset[Gateway]]:
        """What is there now, and again after each change, for ever."""
        ...


class StaticFleet:
    """A set that stays as it is."""

    def __init__(self, gateways: Iterable[Gateway]) -> None:
        self._gateways = frozenset(gateways)

    async def follow(self) -> AsyncIterator[frozenset[Gateway]]:
        yield self._gateways
        await asyncio.Event().wait()


class PodFleet:
    """The pods of a Kubernetes Service, `namespace/name`. Raises SettingsError for another form."""

    def __init__(self, service: str, port_name: str, settings: ClusterSettings) -> None:
        self._namespace, slash, self._name = service.partition("/")
        if not (self._namespace and slash and self._name):
            raise SettingsError(f"{service!r} is not the namespace/name of a Service")
        self._port_name = port_name
        self._settings = settings

    async def follow(self) -> AsyncIterator[frozenset[Gateway]]:
        # What asks Kubernetes takes a moment to load, and only those in a cluster need it.
        from services.cluster import slices

        async for pods in slices.follow(self._namespace, self._name, self._port_name, self._settings):
            yield frozenset(
                Gateway(pod.ip, pod.port, pod.zone, draining=pod.terminating)
                for pod in pods
                if pod.serving and (pod.ready or pod.terminating)
            )


def gateway(text: str) -> Gateway:
    """Of `address:port`, where an IPv6 address stands in brackets. Raises SettingsError."""
    host, _, port = text.rpartition(":")
    try:
        return Gateway(str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port))
    except ValueError as error:
        raise SettingsError(f"MODELPLANE_XDS_GATEWAYS: {text!r} is no IP address and port: {error}") from error
