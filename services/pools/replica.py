"""The Ray actor that holds one model replica: a compose of `chat_inference` alone, in a process of its own.

Its one long call, `run`, tells what it does while it starts and lasts as long as the replica does. So whoever
waits for the next word of `run` learns of every end, whether the replica was asked to go, its engine failed, or
its process was killed.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol, cast

import ray

from services import telemetry
from services.compose import Platform
from services.pools.messages import Phase, Ready, Start, Status
from services.settings import Environment, PlatformSettings

TARGETS = ("chat_inference",)


class Failing(Protocol):
    """What the replica's service offers besides its contract."""

    async def failed(self) -> None:
        """Returns when the engine can never generate again."""
        ...


class Replica:
    """One replica. `run` is called once.

    `threads` is the platform's own OMP_NUM_THREADS. `folder` is private to this machine's platform, "" on a cluster.
    """

    def __init__(self, start: Start, threads: str | None, folder: str) -> None:
        self._replica_id = start.replica_id
        self._environment = Environment(start.variables).with_variables(
            {"MODELPLANE_RPC_LISTEN": _listen(start.replica_id, folder)}
        )
        self._news: asyncio.Queue[Status | None] = asyncio.Queue()
        self._draining = asyncio.Event()
        _redirect_output(Path(start.log_file))
        if threads is None and start.cpus < 1:
            # Ray's guess from the CPUs that it set aside would leave the engine a single thread.
            os.environ.pop("OMP_NUM_THREADS", None)

    async def run(self) -> AsyncIterator[Status]:
        """Yields each phase of the start, then Ready; ends when the replica has drained.

        Raises RuntimeError when the engine fails, and whatever the start raises.
        """
        serving = asyncio.create_task(self._serve())
        serving.add_done_callback(lambda _: self._news.put_nowait(None))
        while (status := await self._news.get()) is not None:
            yield status
        serving.result()

    async def drain(self) -> None:
        self._draining.set()

    def _report(self, phase: str) -> None:
        self._news.put_nowait(Phase(self._replica_id, os.getpid(), phase))

    async def _serve(self) -> None:
        home = self._environment.group(PlatformSettings).home
        with telemetry.configured(self._environment, TARGETS, home=home):
            async with Platform(TARGETS, self._environment, self._report) as platform:
                self._news.put_nowait(Ready(self._replica_id, os.getpid(), platform.server.address))
                failing = asyncio.create_task(cast(Failing, platform.objects[TARGETS[0]]).failed())
                draining = asyncio.create_task(self._draining.wait())
                await asyncio.wait((failing, draining), return_when=asyncio.FIRST_COMPLETED)
                failed = failing.done()
                failing.cancel()
                draining.cancel()
        if failed:
            raise RuntimeError("the engine failed")


def _listen(replica_id: str, folder: str) -> str:
    """Where the replica's gRPC server listens: on one machine a socket file, which costs less than TCP and which
    nobody else can reach. Its path must be short, so it is named by the random end of the id."""
    if folder:
        return f"unix:{folder}/{replica_id.rpartition('-')[2]}.sock"
    return f"{ray.util.get_node_ip_address()}:0"


def _redirect_output(path: Path) -> None:
    """Sends what this process and its children print to a file: the terminal is the user's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
