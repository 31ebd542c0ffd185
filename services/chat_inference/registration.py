"""Keeps the router informed of this replica: that it is there, how loaded it is, whether it is well.

Kept true: a replica that runs and is well becomes known again after any outage or restart of the router without
anybody's help; one that withdraws or is unwell gets no new request.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from modelplane.router.v1.router_api import RouterService
from modelplane.router.v1.router_pb2 import (
    DeregisterRequest,
    HeartbeatRequest,
    Load,
    RegisterRequest,
    Replica,
)
from services import telemetry
from services.context import call
from services.faults import Fault

log = telemetry.logger(__name__)

# A heartbeat that takes longer says nothing new any more.
_CALL_TIMEOUT_S = 3.0


class Registration:
    """One replica's place in the router. `load` is asked before every heartbeat."""

    def __init__(self, router: RouterService, replica: Replica, load: Callable[[], Load], interval_s: float) -> None:
        self._router = router
        self._replica = replica
        self._load = load
        self._interval_s = interval_s
        self._registered = False
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Registers, and keeps registered, in the background."""
        self._task = asyncio.create_task(self._keep())

    async def beat(self) -> None:
        """Tells the router once; registers first where that is needed. Never raises for an absent router."""
        try:
            with call("", _CALL_TIMEOUT_S):
                if not self._registered:
                    await self._router.register(RegisterRequest(replica=self._replica))
                    self._registered = True
                    log.info("registered", replica_id=self._replica.id, address=self._replica.address)
                beat = HeartbeatRequest(replica_id=self._replica.id, load=self._load())
                self._registered = (await self._router.heartbeat(beat)).registered
                self._lost = False
        except Fault as fault:
            if not self._lost:
                log.warning("the router does not answer", replica_id=self._replica.id, reason=fault.reason)
            self._lost = True

    async def withdraw(self) -> None:
        """Takes the replica out of the router, as far as the router can be reached."""
        await self._stop()
        if self._registered:
            self._registered = False
            with suppress(Fault), call("", _CALL_TIMEOUT_S):
                await self._router.deregister(DeregisterRequest(replica_id=self._replica.id))

    async def _stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        while True:
            known = self._registered
            await self.beat()
            if known and not self._registered and not self._lost:
                # The router has just said that it does not know us: it restarted.
                continue
            await asyncio.sleep(self._interval_s)
