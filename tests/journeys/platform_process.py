"""Runs `modelplane up` as a user does, in its own process, and finds every process that it left."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from tests.audited import assert_clean
from tests.journeys.checked import AsyncCheckedTransport, CheckedTransport

START_S = 480.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


class PlatformProcess:
    """One run of the platform on `home`. All its descendants carry a mark in their environment."""

    def __init__(self, home: Path, variables: Mapping[str, str], *arguments: str) -> None:
        self.home = home
        self.mark = f"MODELPLANE_JOURNEY={uuid.uuid4().hex}"
        self.port = free_port()
        self.output: list[str] = []
        self._clients = ExitStack()
        name, _, value = self.mark.partition("=")
        inherited = {key: text for key, text in os.environ.items() if not key.startswith("MODELPLANE_")}
        if cache := os.environ.get("MODELPLANE_CACHE"):
            inherited["MODELPLANE_CACHE"] = cache
        environment = {
            **inherited,
            "MODELPLANE_HOME": str(home),
            "MODELPLANE_PORT": str(self.port),
            name: value,
            **variables,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services", "up", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            self.output.extend(lines)

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"the platform ended:\n{''.join(self.output)}"
            return any("Press Ctrl-C to stop" in line for line in self.output)

        try:
            wait_until(ready, START_S, "ready")
        except AssertionError:
            print("".join(self.output))
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads((self.home / "credentials.json").read_text())
        return kept

    @property
    def database_url(self) -> str:
        return f"postgresql://modelplane@/modelplane?host={self.home / 'run'}"

    def sdk(self, **options: Any) -> OpenAI:
        """The official client; every answer that it gets is held against the specification."""
        kept = self.credentials
        http = DefaultHttpxClient(transport=CheckedTransport(), timeout=options.get("timeout", 600))
        self._clients.callback(http.close)
        return OpenAI(base_url=kept["base_url"], api_key=kept["api_key"], http_client=http, **options)

    def async_sdk(self, **options: Any) -> AsyncOpenAI:
        """The same, for asyncio; to be closed by whoever asks for it."""
        kept = self.credentials
        http = DefaultAsyncHttpxClient(transport=AsyncCheckedTransport(), timeout=options.get("timeout", 600))
        return AsyncOpenAI(base_url=kept["base_url"], api_key=kept["api_key"], http_client=http, **options)

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.credentials['api_key']}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def assert_audited(self) -> None:
        """Whatever was done, every request is billed once, and everything adds up. Nothing can be said of a platform
        that has ended: its database ended with it."""
        if self.process.poll() is not None:
            return
        wait_until(lambda: self.metric("modelplane_spool_records") == 0, 60, "all usage is in the ledger")
        # In a thread, since a test may be inside an event loop.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(asyncio.run, assert_clean(self.database_url)).result()

    def processes(self) -> list[int]:
        """Ids of this run's living processes, by the mark that they inherited."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                marked = self.mark.encode() in (entry / "environ").read_bytes().split(b"\0")
                if marked and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def command_line(self, pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")

    def stop(self, how: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        """Sends a signal to the platform's process alone; the result is its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout_s)

    def kill_everything(self) -> None:
        self._clients.close()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        self._reader.join(30)

    def assert_nothing_left(self, timeout_s: float = 30) -> None:
        try:
            wait_until(lambda: not self.processes(), timeout_s, "no process is left")
        except AssertionError:
            print("\n".join(self.command_line(pid) for pid in self.processes()))
            raise


@contextmanager
def running_platform(
    home: Path, variables: Mapping[str, str] | None = None, *arguments: str
) -> Iterator[PlatformProcess]:
    """A platform that answers; whatever the test did, its ledger adds up and none of its processes outlives the
    block."""
    platform = PlatformProcess(home, variables or {}, *arguments)
    try:
        platform.wait_ready()
        yield platform
        platform.assert_audited()
    finally:
        if platform.process.poll() is None:
            platform.process.terminate()
            try:
                platform.process.wait(60)
            except subprocess.TimeoutExpired:
                print("".join(platform.output))
        platform.kill_everything()
