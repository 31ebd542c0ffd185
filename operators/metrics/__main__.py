"""Serves the external metrics of one release: `python -m operators.metrics`.

It keeps nothing: any number of them may run, and one that starts knows everything after two looks at the pods.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp
from prometheus_client import Counter, Gauge

from operators import process
from operators.kubernetes import connected
from operators.metrics.api import application
from operators.metrics.cluster import Cluster, ClusterError
from operators.metrics.door import Door
from operators.metrics.figures import Board, Samples, parse
from operators.metrics.settings import Settings
from services import telemetry
from services.settings import Environment, PlatformSettings, SettingsError

# Below `services`, whose level the settings decide.
log = telemetry.logger("services.external_metrics")

SCRAPES = Counter(
    "modelplane_external_metrics_scrapes", "Pods that were asked, by outcome: read, failed", ["group", "outcome"]
)
EXPIRES = Gauge(
    "modelplane_external_metrics_certificate_expires_timestamp_seconds",
    "When the certificate that the API shows ends, in Unix time",
)

# Pods that are asked at the same time, and the longest page that is read of one.
AT_ONCE: Final = 64
PAGE_BYTES: Final = 8 * 1024 * 1024
# Seconds between two looks at the certificate and at the front proxy's authority.
RENEW_S: Final = 10.0


class Watcher:
    """Keeps the board as the pods say, and the door as the cluster says."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession, cluster: Cluster, namespace: str) -> None:
        self._settings = settings
        self._session = session
        self._cluster = cluster
        self._namespace = namespace
        self._services = settings.services()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._lost = False
        self._looked = False
        self.board = Board(self._services, window_s=settings.window_s, stale_s=settings.stale_s)

    def state(self) -> tuple[bool, str]:
        """Whether it has looked at the pods, and a word on it."""
        return (True, "ok") if self._looked else (False, "pods are not known")

    async def watch(self) -> None:
        """Looks at the pods for ever."""
        while True:
            started_s = time.monotonic()
            try:
                await self.look()
            except Exception as error:
                if not self._lost:
                    # A cluster that is away is expected; anything else deserves its traceback.
                    known = isinstance(error, ClusterError)
                    log.warning("the pods are not known", error=str(error), exc_info=None if known else error)
                self._lost = True
            else:
                self._lost, self._looked = False, True
            await asyncio.sleep(max(0.0, started_s + self._settings.interval_s - time.monotonic()))

    async def look(self) -> None:
        """Once. Raises ClusterError."""
        groups = await self._cluster.ready_pods(self._namespace, self._services)
        for group, pods in groups.items():
            self.board.ready(group, pods, time.monotonic())
        await asyncio.gather(
            *(self._ask(group, pod, address) for group, pods in groups.items() for pod, address in pods.items())
        )

    async def _ask(self, group: str, pod: str, address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._turns:
                samples = await self._page(f"http://{host}:{self._settings.pods_port}/metrics")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            SCRAPES.labels(group, "failed").inc()
            log.debug("a pod does not say", group=group, address=address, error=error)
        else:
            SCRAPES.labels(group, "read").inc()
            self.board.add(group, pod, samples, time.monotonic())

    async def _page(self, url: str) -> Samples:
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            page = bytearray()
            async for piece in response.content.iter_any():
                page += piece
                if len(page) > PAGE_BYTES:
                    raise ValueError("too long a page")
            return parse(page.decode())

    async def renew(self, door: Door) -> None:
        """Keeps the door's certificate and authority current for ever."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if door.renew(await self._cluster.front_proxy()):
                    log.info("the certificate or the front proxy's authority has changed")
                    EXPIRES.set(door.expires_at_s)
            except Exception as error:
                known = isinstance(error, ClusterError | OSError | ValueError)
                log.warning("what lets callers in stays as it was", error=error, exc_info=None if known else error)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[int, int]]:
    """Serves while entered; gives the ports of HTTPS and HTTP. Raises ClusterError, OSError and SettingsError."""
    namespace = (await asyncio.to_thread((settings.account / "namespace").read_text)).strip()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connected(settings.server, settings.account, settings.timeout_s))
        timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, trust_env=False))
        cluster = Cluster(api)
        watcher = Watcher(settings, session, cluster, namespace)
        door = Door(settings.tls_folder, await cluster.front_proxy())
        EXPIRES.set(door.expires_at_s)
        answers = application(watcher.board, door, namespace)
        https = await stack.enter_async_context(process.listening(answers, settings.listen, door.context))
        pages = process.health(watcher.state)
        http = await stack.enter_async_context(process.listening(pages, settings.health_listen))
        tasks = [asyncio.create_task(watcher.watch()), asyncio.create_task(watcher.renew(door))]
        try:
            yield https, http
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = process.stopping()
    async with serving(settings) as (https, http):
        log.info("serving", groups=settings.groups, port=https, health_port=http)
        await stop.wait()


def main() -> int:
    """The exit status."""
    environment = Environment.capture()
    with telemetry.configured(environment, ("external-metrics",), home=environment.group(PlatformSettings).home):
        try:
            asyncio.run(run(environment.group(Settings)))
        except (ClusterError, SettingsError, OSError) as error:
            log.error("cannot serve", error=str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
