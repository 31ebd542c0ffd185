"""A Kubernetes API that is played: EndpointSlices of one namespace over real HTTP, and what goes wrong with it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any

from aiohttp import web

from services.cluster.settings import ClusterSettings

Object = dict[str, Any]


def kubeconfig(folder: Path, port: int, user: Object | None = None, cluster: Object | None = None) -> ClusterSettings:
    """Of a file that names a played API, without TLS unless `cluster` says so."""
    config = {
        "clusters": [{"name": "c", "cluster": cluster or {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return ClusterSettings(kubeconfig=path)


def endpoint(ip: str, pod: str = "", zone: str | None = None, **conditions: bool | None) -> Object:
    """A pod of a slice. Without conditions it says none, as old controllers do."""
    found: Object = {"addresses": [ip], "conditions": conditions}
    if pod:
        found["targetRef"] = {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"}
    return found | ({"zone": zone} if zone else {})


class Slices:
    """Answers lists and watches. `lists` and `watches` are the queries that were asked."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        self.lists: list[Mapping[str, str]] = []
        self.watches: list[Mapping[str, str]] = []
        self.tokens: list[str] = []
        # What the next requests are answered in place of what is right: a status each.
        self.refusals: list[int] = []
        # Ends each watch as it begins.
        self.impatient = False
        self._slices: dict[str, Object] = {}
        self._events: list[tuple[int, Object]] = []
        self._happened = asyncio.Condition()
        self._generation = 0

    async def put(
        self, name: str, *endpoints: Object, ports: Mapping[str, int] | None = None, family: str = "IPv4"
    ) -> None:
        kind = "MODIFIED" if name in self._slices else "ADDED"
        numbers = {"http": 8080, "grpc": 9000} if ports is None else ports
        one = {
            "metadata": {"name": name},
            "addressType": family,
            "endpoints": list(endpoints),
            "ports": [{"name": key, "port": port} for key, port in numbers.items()],
        }
        self._slices[name] = one
        await self._tell(kind, one)

    async def delete(self, name: str) -> None:
        await self._tell("DELETED", self._slices.pop(name))

    async def bookmark(self) -> None:
        await self._tell("BOOKMARK", {"kind": "EndpointSlice", "metadata": {}})

    async def forget(self) -> None:
        """What happened until now is not known any more, and whoever watches is cut off."""
        self.version += 1
        self.oldest = self.version
        self._events.clear()
        await self.cut()

    async def cut(self) -> None:
        """Ends all watches in the middle of what they say."""
        async with self._happened:
            self._generation += 1
            self._happened.notify_all()

    async def _tell(self, kind: str, one: Object) -> None:
        self.version += 1
        one["metadata"]["resourceVersion"] = str(self.version)
        async with self._happened:
            self._events.append((self.version, {"type": kind, "object": json.loads(json.dumps(one))}))
            self._happened.notify_all()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.tokens.append(request.headers.get("authorization", ""))
        (self.watches if "watch" in query else self.lists).append(query)
        if self.refusals:
            status = self.refusals.pop(0)
            return web.json_response({"kind": "Status", "code": status, "message": "no"}, status=status)
        if "watch" in query:
            return await self._watched(request, int(query["resourceVersion"]))
        return web.json_response(
            {"metadata": {"resourceVersion": str(self.version)}, "items": list(self._slices.values())}
        )

    async def _watched(self, request: web.Request, version: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if version < self.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        generation = self._generation
        while not self.impatient:
            told = [(number, event) for number, event in self._events if number > version]
            for number, event in told:
                line = json.dumps(event).encode() + b"\n"
                # In two pieces, as a network may deliver it.
                await response.write(line[:25])
                await response.write(line[25:])
                version = number
            async with self._happened:
                if generation == self._generation and not any(number > version for number, _ in self._events):
                    await self._happened.wait()
            if generation != self._generation:
                await response.write(b'{"type": "MODI')
                assert request.transport is not None
                request.transport.abort()
                break
        return response


@asynccontextmanager
async def serving(slices: Slices, port: int = 0, tls: SSLContext | None = None) -> AsyncIterator[int]:
    """The port that it answers at."""
    application = web.Application()
    application.router.add_get("/apis/discovery.k8s.io/v1/namespaces/place/endpointslices", slices.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True, ssl_context=tls)
    await site.start()
    assert site._server is not None
    [listening] = site._server.sockets  # type: ignore[attr-defined]
    try:
        yield listening.getsockname()[1]
    finally:
        with suppress(ConnectionError):
            await slices.cut()
        await runner.cleanup()
