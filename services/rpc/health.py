"""gRPC's health service: what this process says of itself, and by which its clients know where to send calls.

A client watches the name of a service with `CALLS` behind it for every process that its address stands for, and
sends calls only where that is SERVING: from when the service is in place until shortly before the server stops. So
nothing is sent to a process that is still starting, and nothing is on its way to one when its server stops.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

CALLS: Final = "/calls"
Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Statuses by name. `watchers` are the clients that follow one."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._changed = asyncio.Event()
        self._ended = False
        self.watchers = 0

    def set(self, name: str, serving: bool) -> None:
        self._serving[name] = serving
        self._tell()

    def names(self) -> tuple[str, ...]:
        return tuple(self._serving)

    def end(self) -> None:
        """Ends everybody's watching: a server cannot stop before."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _status(self, name: str) -> int:
        serving = self._serving.get(name)
        status: int = Status.SERVICE_UNKNOWN if serving is None else Status.SERVING if serving else Status.NOT_SERVING
        return status

    async def Check(self, request: Any, servicer: Any) -> Any:  # noqa: N802 - gRPC's name
        if request.service not in self._serving:
            await servicer.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Status(status=self._status(request.service))

    async def Watch(self, request: Any, servicer: Any) -> AsyncIterator[Any]:  # noqa: N802 - gRPC's name
        """The status, and every other one as it comes, until `end`."""
        self.watchers += 1
        try:
            told = None
            while True:
                changed, ended, status = self._changed, self._ended, self._status(request.service)
                if status != told:
                    yield Status(status=status)
                    told = status
                if ended:
                    return
                await changed.wait()
        finally:
            self.watchers -= 1
