"""A Ray cluster of several nodes on this machine, for tests: a head without room, and workers with custom resources."""

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from services.pools.sessions import end_session

RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats")
QUIET: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    # A node that is gone is noticed in seconds, as a test wants it.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RayNode:
    """A node, in a session of its own, so that it can be ended with everything that runs on it."""

    def __init__(self, arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._variables = {**os.environ, **QUIET, **variables}
        self._folder = tempfile.mkdtemp(prefix="mp-test-ray-", dir="/tmp")
        self.session = 0

    async def start(self) -> None:
        common = ("--node-ip-address", "127.0.0.1", "--num-gpus", "0", "--object-store-memory", "80000000")
        command = (*RAY, *common, "--temp-dir", self._folder, "--block", *self._arguments)
        log = Path(self._folder) / "start.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command, env=self._variables, stdout=output, stderr=output, start_new_session=True
            )
        self.session = process.pid
        while b"Ray runtime started" not in log.read_bytes():
            assert process.returncode is None, log.read_text()
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        if self.session:
            assert not await asyncio.to_thread(end_session, self.session, 10)
            self.session = 0
        shutil.rmtree(self._folder, ignore_errors=True)


class RayCluster:
    """A head that offers nothing, and workers. Its processes ask one another for a token."""

    def __init__(self, folder: Path) -> None:
        self.token_file = folder / "cluster-token"
        self.token_file.write_text("a token of at least sixteen characters")
        self._variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        self._nodes: list[RayNode] = []
        self._port = free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start_head(self) -> RayNode:
        return await self._start("--head", "--port", str(self._port), "--num-cpus", "0", "--include-dashboard", "false")

    async def start_worker(self, resources: Mapping[str, float], home: Path) -> RayNode:
        """A worker with one CPU and these custom resources, which keeps its own files in `home`."""
        own = {"MODELPLANE_HOME": str(home)}
        return await self._start(
            "--address", self.address, "--num-cpus", "1", "--resources", json.dumps(resources), variables=own
        )

    async def _start(self, *arguments: str, variables: Mapping[str, str] | None = None) -> RayNode:
        node = RayNode(arguments, {**self._variables, **(variables or {})})
        self._nodes.append(node)
        await node.start()
        return node

    async def end(self) -> None:
        for node in reversed(self._nodes):
            await node.end()
