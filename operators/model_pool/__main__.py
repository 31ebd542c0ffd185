"""The operator of model pools: `python -m operators.model_pool`.

Any number of them may run; the one that holds the Lease works, and the others wait. It ends with status 0 when it is
told to, and when the API refuses its account for good, as after the release was removed.
"""

import asyncio
import os
import secrets
import socket
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

from modelplane.pools.v1.pools_api import PoolsService
from operators import process
from operators.kubernetes import Api, ApiError, connected
from operators.model_pool.apply import Turns
from operators.model_pool.lease import Lease
from operators.model_pool.settings import Settings
from services import telemetry
from services.rpc.connect import connect
from services.rpc.settings import RpcSettings
from services.settings import Environment, PlatformSettings, SettingsError

log = telemetry.logger("services.model_pools")

BACKOFF_MAX_S: Final = 30.0


class RefusedError(Exception):
    """The API has refused the account for so long that it will not take it any more."""


class Operator:
    """One process. It takes turns while it holds the Lease."""

    def __init__(self, settings: Settings, api: Api, turns: Turns, lease: Lease, namespace: str) -> None:
        self._settings = settings
        self._api = api
        self._turns = turns
        self._lease = lease
        self._namespace = namespace
        self._changed = asyncio.Event()
        self._leads = False
        self._looked = False

    def state(self) -> tuple[bool, str]:
        """Whether it is ready, and a word on it. Who only waits for the Lease is ready too."""
        if self._leads and not self._looked:
            return False, "it has not looked yet"
        return True, "works" if self._leads else "waits"

    async def work(self, stop: asyncio.Event) -> None:
        """Until `stop` is set: waits for the Lease, works while it is held, and waits again. Raises RefusedError."""
        stopping = asyncio.ensure_future(stop.wait())
        refusing = asyncio.ensure_future(self._refused())
        try:
            while not (stopping.done() or refusing.done()):
                await self._lead(stopping, refusing)
            if refusing.done():
                refusing.result()
        finally:
            for task in (stopping, refusing):
                task.cancel()
            await asyncio.gather(stopping, refusing, return_exceptions=True)

    async def _lead(self, *ends: asyncio.Future[Any]) -> None:
        """One time of holding the Lease, until it is lost or one of `ends` is done."""
        waiting = asyncio.ensure_future(self._lease.taken())
        await asyncio.wait((waiting, *ends), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return
        log.info("works", namespace=self._namespace)
        self._leads = True
        running = [asyncio.ensure_future(work) for work in (self._lease.kept(), self._turn(), self._watch())]
        try:
            await asyncio.wait((*running, *ends), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in running:
                task.cancel()
            for ended in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(ended, Exception):
                    log.error("the operator stumbled", error=str(ended), exc_info=ended)
            self._leads = self._looked = False
            log.info("works no more", namespace=self._namespace)
            if not self._api.refused_s():
                await self._lease.give_back()

    async def _watch(self) -> None:
        """Makes a turn come at once when an object has changed; what it misses, the next turn sees anyway."""
        # Our own writes of the status make no new generation.
        seen: dict[str, tuple[int, bool]] = {}
        while True:
            try:
                async for event in self._api.watch(self._turns.objects):
                    metadata = event["object"].get("metadata", {})
                    now = (metadata.get("generation", 0), "deletionTimestamp" in metadata)
                    if event["type"] == "DELETED":
                        seen.pop(metadata["uid"], None)
                        self._changed.set()
                    elif "uid" in metadata and seen.get(metadata["uid"]) != now:
                        seen[metadata["uid"]] = now
                        self._changed.set()
            except ApiError as error:
                log.info("objects are not watched", error=str(error))
            await asyncio.sleep(self._settings.interval_s)

    async def _turn(self) -> None:
        """Turns for ever; when one fails, the next ones come later and later."""
        pause_s, lost = self._settings.interval_s, False
        while True:
            self._changed.clear()
            try:
                await self._turns.turn()
            except Exception as error:  # this loop is all that happens: it must not end
                known = isinstance(error, ApiError)
                if not lost:
                    log.warning("a turn failed", error=str(error), exc_info=None if known else error)
                lost, pause_s = True, min(BACKOFF_MAX_S, pause_s * 2)
                await asyncio.sleep(pause_s)
                continue
            if lost:
                log.info("turns go on")
            pause_s, lost, self._looked = self._settings.interval_s, False, True
            try:
                await asyncio.wait_for(self._changed.wait(), self._settings.interval_s)
            except TimeoutError:
                continue

    async def _refused(self) -> None:
        """Raises RefusedError once the API has refused the account for too long."""
        while self._api.refused_s() < self._settings.refused_s:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        raise RefusedError("the API refuses the service account: the release was removed")


async def run(environment: Environment) -> None:
    """Until SIGTERM or SIGINT. Raises SettingsError, OSError and RefusedError."""
    settings, stop = environment.group(Settings), process.stopping()
    if not (address := environment.address_of("pools")):
        raise SettingsError("set MODELPLANE_POOLS_ADDRESS to the host:port of the service pools")
    namespace = (await asyncio.to_thread((settings.account / "namespace").read_text)).strip()
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connected(settings.server, settings.account, settings.timeout_s))
        client = connect(PoolsService, address, environment.group(RpcSettings))
        pools = await stack.enter_async_context(client)
        turns = Turns(api, pools, settings, namespace, environment.group(PlatformSettings).config)
        identity = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        name = f"{settings.release}-operator"
        lease = Lease(api=api, namespace=namespace, name=name, identity=identity, length_s=settings.lease_s)
        operator = Operator(settings, api, turns, lease, namespace)
        pages = process.health(operator.state)
        await stack.enter_async_context(process.listening(pages, settings.health_listen))
        await operator.work(stop)


def main() -> int:
    """The exit status."""
    environment = Environment.capture()
    with telemetry.configured(environment, ("operator",), home=environment.group(PlatformSettings).home):
        try:
            asyncio.run(run(environment))
        except RefusedError as error:
            log.warning("ends", error=str(error))
        except (SettingsError, OSError) as error:
            log.error("cannot go on", error=str(error))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
