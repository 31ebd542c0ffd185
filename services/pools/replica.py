"""The Ray actor that holds one model replica: a compose of `chat_inference` alone, in a process of its own.

Whoever runs it asks for its news again and again, with `follow`, and hears in answer what it does while it starts,
that it is ready, and that it has ended. Each call begins where the caller says, so that a driver that was started
anew hears everything. Kept true: the calls' end is the replica's end, whether it was asked to go, its engine failed,
or its process was killed; a replica that nobody asks for its news any more goes by itself.
"""

import asyncio
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, cast

import ray

from services import telemetry
from services.compose import Platform
from services.pools.messages import Found, Phase, Ready, Start, Status
from services.settings import Environment, PlatformSettings

TARGETS = ("chat_inference",)
# Longest wait for news; an answer without any tells that the replica lives.
NEWS_TIMEOUT_S = 10.0
# What a machine of a cluster knows better than the platform: where its own folders are.
LOCAL: Final = (
    *("MODELPLANE_HOME", "MODELPLANE_CACHE", "MODELPLANE_RPC_TLS_FOLDER"),
    *("MODELPLANE_RPC_HEALTH_LISTEN", "MODELPLANE_TELEMETRY_LISTEN"),
)
# An actor that nobody follows so long after it was made was made for a driver that is gone.
UNCLAIMED_S = 60.0


class Failing(Protocol):
    """What the replica's service offers besides its contract."""

    async def failed(self) -> None:
        """Returns when the engine can never generate again."""
        ...


class Replica:
    """One replica. Its first `follow` starts it.

    `threads` is the platform's own OMP_NUM_THREADS. `folder` is private to this machine's platform, "" on a cluster;
    `host` is where to listen instead. After `abandoned_after_s` without a `follow` it drains; 0: never.
    """

    def __init__(self, start: Start, threads: str | None, folder: str, host: str, abandoned_after_s: float) -> None:
        self._start = start
        self._abandoned_after_s = abandoned_after_s
        own = {name: os.environ[name] for name in LOCAL if name in os.environ} if not folder else {}
        self._environment = Environment(start.variables).with_variables(
            {**own, "MODELPLANE_RPC_LISTEN": _listen(start.replica_id, folder, host)}
        )
        self._home = self._environment.group(PlatformSettings).home
        self._node = ray.util.get_node_ip_address(), socket.gethostname()
        self._said: list[Status] = []
        self._news = asyncio.Event()
        self._draining = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._followed_at_s = time.monotonic()
        _redirect_output(self._home / start.log_file)
        unclaimed = threading.Timer(UNCLAIMED_S, self._leave_unclaimed)
        unclaimed.daemon = True
        unclaimed.start()
        if threads is None and start.cpus < 1:
            # Ray's guess from the CPUs that it set aside would leave the engine a single thread.
            os.environ.pop("OMP_NUM_THREADS", None)

    def _leave_unclaimed(self) -> None:
        if self._serving is None:
            os._exit(0)

    async def follow(self, heard: int) -> tuple[list[Status], bool]:
        """What it has said since the first `heard` words, as soon as there is more, and whether it has ended.

        Raises RuntimeError when the engine has failed, and whatever the start raised.
        """
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
            self._serving.add_done_callback(lambda _: self._news.set())
        self._followed_at_s = time.monotonic()
        if len(self._said) <= heard and not self._serving.done():
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), NEWS_TIMEOUT_S)
        if self._serving.done():
            self._serving.result()
        return self._said[heard:], self._serving.done()

    async def describe(self) -> Found:
        """What a driver that did not start it must know of it."""
        start = self._start
        return Found(start.replica_id, start.model, start.generation, start.started_at_ms, self._draining.is_set())

    async def drain(self) -> None:
        self._draining.set()

    def _say(self, status: Status) -> None:
        self._said.append(status)
        self._news.set()

    def _report(self, phase: str) -> None:
        self._say(Phase(self._start.replica_id, os.getpid(), phase, *self._node))

    async def _serve(self) -> None:
        with telemetry.configured(self._environment, TARGETS, home=self._home):
            async with Platform(TARGETS, self._environment, self._report) as platform:
                self._say(Ready(self._start.replica_id, os.getpid(), platform.server.address, *self._node))
                waits = [
                    asyncio.create_task(cast(Failing, platform.objects[TARGETS[0]]).failed()),
                    asyncio.create_task(self._draining.wait()),
                    asyncio.create_task(self._abandoned()),
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                failed = waits[0].done()
                abandoned = waits[2].done()
                for wait in waits:
                    wait.cancel()
        if abandoned:
            # Nobody is there to end the actor.
            os._exit(0)
        if failed:
            raise RuntimeError("the engine failed")

    async def _abandoned(self) -> None:
        """Returns when nobody has asked for news for too long."""
        if self._abandoned_after_s <= 0:
            await asyncio.Event().wait()
        while (left_s := self._followed_at_s + self._abandoned_after_s - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)


def _listen(replica_id: str, folder: str, host: str) -> str:
    """Where the replica's gRPC server listens: on one machine a socket file, which costs less than TCP and which
    nobody else can reach. Its path must be short, so it is named by the random end of the id."""
    if folder and not host:
        return f"unix:{folder}/{replica_id.rpartition('-')[2]}.sock"
    host = host or ray.util.get_node_ip_address()
    return f"[{host}]:0" if ":" in host else f"{host}:0"


def _redirect_output(path: Path) -> None:
    """Sends what this process and its children print to a file: the terminal is the user's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
