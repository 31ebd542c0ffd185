"""Follows the pods behind one Service, through its EndpointSlices.

What it keeps true: what is given is what one state of the API server says, or the last that it said while it is away;
a pod counts once, also while it moves between slices or has addresses of both families; changes that come together
are given together, and a reader that is slow gets the newest state and not every one in between.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import aiohttp
from prometheus_client import Counter

from services import telemetry
from services.cluster.access import Access, access
from services.cluster.settings import ClusterSettings

log = telemetry.logger(__name__)

FAILURES = Counter(
    "modelplane_cluster_watch_failures",
    "Times that the pods of a Service could not be followed for a moment, by whether the API server was away, refused, "
    "or had forgotten the state that was known",
    ["service", "reason"],
)

# A watch is asked for anew so often: an API server that is gone without a word is noticed a little later.
WATCH_S: Final = 60
ANSWER_S: Final = 15
# For so long changes are gathered: a rollout is twenty states a second, not a thousand.
GATHER_S: Final = 0.05
BACKOFF_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0
STATUS_GONE: Final = 410


class Address(NamedTuple):
    """Where a pod answers. One that ends is not `ready`, `serving` for as long as it still answers, and `terminating`.

    `zone` is "" where nodes are in none."""

    ip: str
    port: int
    zone: str
    ready: bool
    serving: bool
    terminating: bool


class RefusedError(Exception):
    """The API server answered with something else than what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the Kubernetes API answers {status}: {message}")
        self.status = status


class Slices:
    """What is known of a Service's slices. Pure; `version` is how far."""

    def __init__(self, port_name: str) -> None:
        self.version = ""
        self._port_name = port_name
        # By name, the one that changed last at the end.
        self._slices: dict[str, Mapping[str, Any]] = {}

    def listed(self, answer: Mapping[str, Any]) -> None:
        self._slices = {one["metadata"]["name"]: one for one in answer.get("items") or ()}
        self.version = answer["metadata"]["resourceVersion"]

    def happened(self, event: Mapping[str, Any]) -> bool:
        """Whether it can have changed the addresses. Raises RefusedError."""
        kind, one = event["type"], event["object"]
        if kind == "ERROR":
            raise RefusedError(one.get("code", 0), one.get("message", ""))
        self.version = one["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return False
        name = one["metadata"]["name"]
        self._slices.pop(name, None)
        if kind != "DELETED":
            self._slices[name] = one
        return True

    def addresses(self) -> frozenset[Address]:
        """A pod that is in several slices is as the one says that changed last, and has its IPv4 address."""
        found: dict[str, Address] = {}
        # IPv6 first, so that IPv4 replaces it. Kinds of names are none of a pod's.
        for family in ("IPv6", "IPv4"):
            for piece in self._slices.values():
                port = self._port(piece)
                if piece["addressType"] != family or port is None:
                    continue
                for endpoint in piece.get("endpoints") or ():
                    ip = endpoint["addresses"][0]
                    found[(endpoint.get("targetRef") or {}).get("uid", ip)] = _address(ip, port, endpoint)
        return frozenset(found.values())

    def _port(self, piece: Mapping[str, Any]) -> int | None:
        for port in piece.get("ports") or ():
            if (port.get("name") or "") == self._port_name and port.get("port"):
                return int(port["port"])
        return None


def _address(ip: str, port: int, endpoint: Mapping[str, Any]) -> Address:
    # What is not said: an endpoint is ready, serves when it is ready, and does not end.
    conditions = endpoint.get("conditions") or {}
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    terminating = bool(conditions.get("terminating"))
    return Address(ip, port, endpoint.get("zone") or "", ready, ready if serving is None else serving, terminating)


async def follow(
    namespace: str, service: str, port_name: str, settings: ClusterSettings | None = None
) -> AsyncIterator[frozenset[Address]]:
    """The addresses of one Service's port, now and after each change, for ever.

    The first comes when the API server has answered; a Service that is not there has none. Needs the right to list and
    watch the namespace's endpointslices. Raises SettingsError when it cannot be known how to ask."""
    reach = await asyncio.to_thread(access, settings or ClusterSettings())
    slices, changed = Slices(port_name), asyncio.Event()
    watcher = Watcher(reach, namespace, service, slices, changed)
    watching = asyncio.create_task(watcher.watch(), name=f"pods of {namespace}/{service}")
    given: frozenset[Address] | None = None
    try:
        while True:
            await changed.wait()
            await asyncio.sleep(GATHER_S)
            changed.clear()
            now = slices.addresses()
            if now != given:
                given = now
                yield now
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Watcher:
    """Keeps `slices` as the API server has them, and sets `changed`."""

    def __init__(self, reach: Access, namespace: str, service: str, slices: Slices, changed: asyncio.Event) -> None:
        self._reach = reach
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._selector = {"labelSelector": f"kubernetes.io/service-name={service}"}
        self._service = f"{namespace}/{service}"
        self._slices = slices
        self._changed = changed
        # In a row, which say how long to wait; and whether the log has been told.
        self._failures = 0
        self._lost = False

    async def watch(self) -> None:
        """Does not end. After a failure it goes on where it was, or from the start when that is not known any more."""
        async with aiohttp.ClientSession(trust_env=False) as session:
            while True:
                try:
                    if not self._slices.version:
                        await self._list(session)
                    await self._watch(session)
                except RefusedError as error:
                    self._slices.version = ""
                    # Being behind is no failure: what is there now is asked for at once, but not for ever.
                    await self._failed("behind" if error.status == STATUS_GONE else "refused", error)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    await self._failed("away", error)
                except Exception as error:  # nothing may end what the edge goes by
                    self._slices.version = ""
                    log.error("cannot read what the Kubernetes API says", service=self._service, exc_info=error)
                    await self._failed("refused", error)

    async def _failed(self, reason: str, error: Exception) -> None:
        FAILURES.labels(self._service, reason).inc()
        if not self._lost and reason != "behind":
            said = str(error) or type(error).__name__
            log.warning("the pods of a Service cannot be followed now", service=self._service, error=said)
            self._lost = True
        wait_s = min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

    async def _list(self, session: aiohttp.ClientSession) -> None:
        async with self._get(session, {}, ANSWER_S) as response:
            answer = json.loads(await self._checked(response))
        self._slices.listed(answer)
        self._changed.set()

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Until the API server ends it, as it does when it was asked to. Raises RefusedError."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._slices.version,
            "timeoutSeconds": str(WATCH_S),
        }
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with self._get(session, query, WATCH_S + ANSWER_S) as response:
            if response.status != 200:
                await self._checked(response)
            if self._lost:
                self._lost = False
                log.info("the pods of a Service are followed again", service=self._service)
            rest = b""
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if self._slices.happened(json.loads(line)):
                        self._changed.set()
                    self._failures = 0
        if loop.time() - started_s < 1:
            raise ConnectionError("a watch ended as soon as it began")
        self._failures = 0

    def _get(
        self, session: aiohttp.ClientSession, query: Mapping[str, str], timeout_s: float
    ) -> "aiohttp.client._RequestContextManager":
        return session.get(
            f"{self._reach.server}{self._path}?{urlencode(self._selector | dict(query))}",
            headers={"accept": "application/json"} | self._reach.headers(),
            ssl=self._reach.trust if self._reach.trust is not None else True,
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=ANSWER_S),
        )

    async def _checked(self, response: aiohttp.ClientResponse) -> bytes:
        """What it says. Raises RefusedError."""
        body = await response.read()
        if response.status != 200:
            raise RefusedError(response.status, body[:300].decode(errors="replace"))
        return body
