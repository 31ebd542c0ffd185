"""A port for an orchestrator's probes: gRPC's health service without TLS, and nothing else.

Probes cannot show a certificate. Kept true: an answer never takes longer than a probe waits, and what a process
depends on is asked at most once a second, however many probes there are.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services import telemetry
from services.faults import Fault

log = telemetry.logger(__name__)

LIVENESS: Final = ("", "liveness")
SERVING: Final = "serving"
READINESS: Final = "readiness"

ASK_EVERY_S: Final = 1.0
# A probe that waits longer than this is told what was known before.
ANSWER_S: Final = 0.5
# What has not answered after this is not ready.
PING_S: Final = 2.0

Ping = Callable[[], Awaitable[None]]
Status = health_pb2.HealthCheckResponse


class Readiness:
    """Whether the process serves and everything it depends on answers, as last asked."""

    def __init__(self, serving: Callable[[], bool], pings: Callable[[], Mapping[str, Ping]]) -> None:
        self.serving = serving
        self._pings = pings
        self._ready = False
        self._asked_at_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def ready(self) -> bool:
        if not self.serving():
            return False
        if self._asking is None and time.monotonic() - self._asked_at_s >= ASK_EVERY_S:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait((self._asking,), timeout=ANSWER_S)
        return self._ready and self.serving()

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        try:
            pings = self._pings()
            reasons = await asyncio.gather(*(_missing(ping) for ping in pings.values()))
            missing = {name: reason for name, reason in zip(pings, reasons, strict=True) if reason}
            if missing and self._ready:
                log.warning("not ready", missing=missing)
            self._ready = not missing
        finally:
            self._asked_at_s = time.monotonic()
            self._asking = None


async def _missing(ping: Ping) -> str:
    """Why the dependency does not answer, "" when it does."""
    try:
        async with asyncio.timeout(PING_S):
            await ping()
    except TimeoutError:
        return f"no answer within {PING_S:g} seconds"
    except Fault as fault:
        return fault.reason
    except Exception as error:  # a ping that fails must not end the probes
        log.error("a ping failed", exc_info=error)
        return type(error).__name__
    return ""


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Only `Check`: probes do not watch."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def Check(self, request: Any, servicer: Any) -> Any:  # noqa: N802 - gRPC's name
        good = True
        if request.service == SERVING:
            good = self._readiness.serving()
        elif request.service == READINESS:
            good = await self._readiness.ready()
        elif request.service not in LIVENESS:
            await servicer.abort(grpc.StatusCode.NOT_FOUND, "services are liveness, serving and readiness")
        return Status(status=Status.SERVING if good else Status.NOT_SERVING)


class ProbePort:
    """Listens from `start` to `stop`: `address` is where."""

    def __init__(self, listen: str, serving: Callable[[], bool], pings: Callable[[], Mapping[str, Ping]]) -> None:
        self._listen = listen
        self._readiness = Readiness(serving, pings)
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.address = ""

    async def start(self) -> None:
        """Raises OSError when the address is taken."""
        health_pb2_grpc.add_HealthServicer_to_server(_Health(self._readiness), self._server)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._listen}: choose another MODELPLANE_RPC_HEALTH_LISTEN") from error
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await self._server.start()

    async def stop(self) -> None:
        with suppress(asyncio.CancelledError):
            await self._server.stop(0)
        await self._readiness.close()
