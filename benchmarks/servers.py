"""Starts the servers of a benchmark, waits until they answer, and stops them and their children, by pid.

A server lives in a session of its own: Ctrl-C reaches only the benchmark, which then stops each server in the
reverse order of starting, and leaves none behind.
"""

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.conversation import UPSTREAM_KEY
from benchmarks.fake_openai import MODEL
from benchmarks.processes import Process, tree

ROOT = Path(__file__).resolve().parent.parent
PYTHON = Path(sys.executable)

Command = list[str | Path]

Role = Literal["gateway", "database", "upstream", "ray"]
"""What a process is there for. Only `gateway` and `database` are the system's own work on a request."""


@dataclass(frozen=True)
class Target:
    """A system under test: where and how it is asked, and which processes do its work now, by role."""

    name: str
    port: int
    key: str
    model: str
    streamed_model: str
    """What streamed requests name: another model where the upstream speaks in another rhythm then."""
    roles: Callable[[], Mapping[Role, list[Process]]]


class StartError(Exception):
    """A server that did not become ready, with the end of its log."""


def free_port() -> int:
    """A port that nothing listens on, below those that the system hands out: it stays free until it is used."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@contextmanager
def serve(
    command: Command,
    *,
    environment: Mapping[str, str],
    log: Path,
    ready_url: str,
    timeout_s: float,
) -> Iterator[int]:
    """Runs the command until the block ends; gives its pid once `ready_url` answers 200.

    Its environment is the caller's without anything that configures a model provider or a platform, plus
    `environment`. Raises StartError when it ends or is not ready in time.
    """
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME") if name in os.environ
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, ready_url, log, timeout_s)
        yield process.pid
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and process.poll() is None:
        with suppress(OSError, http.client.HTTPException), opener.open(url, timeout=2):
            return  # an answer other than 2xx raises HTTPError, an OSError
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise StartError(f"{process.args!r} is not ready (exit status {process.poll()}):\n{tail}")


def _stop(process: subprocess.Popen[bytes], grace_s: float = 60.0) -> None:
    """Asks the server to end, then kills what is left of it and of the children it had."""
    family = tree(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    deadline_s = time.monotonic() + 5.0
    while (left := _left_over(family)) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    for pid in left:
        print(f"killing process {pid}, left over: {family[pid].command[:120]}", file=sys.stderr)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(grace_s)


def _left_over(family: Mapping[int, Process]) -> list[int]:
    return [pid for pid, process in family.items() if _command(pid) == process.command]


def _command(pid: int) -> str | None:
    found = tree(pid).get(pid)
    return found.command if found is not None else None


@contextmanager
def fake_openai(log_directory: Path) -> Iterator[Target]:
    """The instant upstream; asked directly it is the floor that latencies are compared with."""
    port = free_port()
    command: Command = [PYTHON, "-m", "benchmarks.fake_openai", "--port", str(port)]
    log = log_directory / "fake_openai.log"
    with serve(command, environment={}, log=log, ready_url=f"http://127.0.0.1:{port}/health", timeout_s=30) as pid:
        yield Target("direct", port, UPSTREAM_KEY, MODEL, MODEL, lambda: {"upstream": list(tree(pid).values())})
