"""The process that is connected to Ray: starts and ends replicas as it is told, and reports what becomes of them.

Kept true: it lives in a session of its own; when its standard input ends, because the platform closed it or was
killed, everything in that session ends with it within `stop_timeout_s`, and the folder that Ray wrote to goes.
Run as `python -m services.pools.driver OPTIONS`; speaks as `messages` says.
"""

import asyncio
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from services.pools.messages import (
    Command,
    Connected,
    Drain,
    DriverOptions,
    Ended,
    Event,
    Kill,
    Phase,
    Start,
)
from services.pools.sessions import adopt_orphans, end_session, reap


class Driver:
    """Runs the commands. `tell` sends an event to the platform; `folder` takes sockets, "" on a cluster."""

    def __init__(self, tell: Callable[[Event], None], folder: str) -> None:
        self._tell = tell
        self._folder = folder
        self._actors: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, command: Command) -> None:
        match command:
            case Start():
                self._spawn(self._run(command))
            case Drain(replica_id):
                if replica_id in self._actors:
                    self._actors[replica_id].drain.remote()
            case Kill(replica_id):
                self._kill(replica_id)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _kill(self, replica_id: str) -> None:
        import ray

        if replica_id in self._actors:
            ray.kill(self._actors[replica_id])

    async def _run(self, command: Start) -> None:
        """One replica from its start to its end, whichever way it ends."""
        import ray

        from services.pools.replica import Replica

        self._tell(Phase(command.replica_id, 0, "waiting for a process"))
        error = ""
        try:
            actor_class = ray.remote(num_cpus=command.cpus, num_gpus=command.gpus)(Replica)
            actor = actor_class.remote(command, os.environ.get("OMP_NUM_THREADS"), self._folder)
            self._actors[command.replica_id] = actor
            async for said in actor.run.options(num_returns="streaming").remote():
                self._tell(await said)
        except Exception as failure:  # whatever ended it, it has ended
            error = _reason(failure)
        self._kill(command.replica_id)
        self._actors.pop(command.replica_id, None)
        self._tell(Ended(command.replica_id, error))


def _reason(failure: Exception) -> str:
    """One line that says why a replica ended, without Ray's own words around it."""
    cause = getattr(failure, "cause", None) or failure
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no reason given'}"[:500]


def connect(options: DriverOptions) -> None:
    """Connects to Ray, or starts it: on 127.0.0.1 only, silent, with its files under the given folder."""
    local = not options.address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    if local:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = options.token_file
        # Ray's switch for staying on the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.pop("RAY_ADDRESS", None)
        # Ray lowers the priority of its workers, but here they are what the machine is for.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray would kill a replica when other programs fill the machine's memory.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    import ray

    extra: dict[str, Any] = (
        {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": options.object_store_bytes,
            "_temp_dir": options.folder,
            "_node_ip_address": "127.0.0.1",
        }
        if local
        else {"address": options.address}
    )
    ray.init(log_to_driver=False, logging_level="warning", **extra)


def stop(options: DriverOptions) -> None:
    """Ends Ray and everything else in this session, and removes what Ray wrote."""
    import ray

    with suppress(Exception):
        ray.shutdown()
    end_session(os.getsid(0), options.stop_timeout_s)
    reap()
    shutil.rmtree(options.folder, ignore_errors=True)


def watch(
    commands: BinaryIO,
    accept: Callable[[Command | None], None],
    connected: threading.Event,
    options: DriverOptions,
) -> None:
    """Reads commands until the platform closes the pipe or dies, and then sees to it that this process ends."""
    decoder = msgspec.json.Decoder(Command)
    for line in commands:
        accept(decoder.decode(line))
    if connected.is_set():
        accept(None)
        time.sleep(options.stop_timeout_s)
    # Ray is still starting, which cannot be interrupted, or hangs while it stops.
    end_session(os.getsid(0), options.stop_timeout_s)
    reap()
    shutil.rmtree(options.folder, ignore_errors=True)
    os._exit(1)


async def serve(driver: Driver, inbox: "asyncio.Queue[Command | None]") -> None:
    while (command := await inbox.get()) is not None:
        driver.handle(command)


def main(arguments: list[str]) -> int:
    """Serves one fleet's commands until its owner goes. `arguments` is the DriverOptions as JSON."""
    options = msgspec.json.decode(arguments[0], type=DriverOptions)
    if os.getsid(0) != os.getpid():
        raise SystemExit("the driver ends its whole session, so it must be started in a new one")
    adopt_orphans()
    # The pipes are for messages alone: whatever Ray or a library prints goes to the log.
    commands, events = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    encoder = msgspec.json.Encoder()

    def tell(event: Event) -> None:
        with suppress(BrokenPipeError):
            events.write(encoder.encode(event) + b"\n")

    loop = asyncio.new_event_loop()
    inbox: asyncio.Queue[Command | None] = asyncio.Queue()
    connected = threading.Event()

    def accept(command: Command | None) -> None:
        loop.call_soon_threadsafe(inbox.put_nowait, command)

    threading.Thread(target=watch, args=(commands, accept, connected, options), daemon=True).start()
    began = time.monotonic()
    try:
        connect(options)
        # The platform decides when to stop, by closing the pipe.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        connected.set()
        tell(Connected(round((time.monotonic() - began) * 1000)))
        loop.run_until_complete(serve(Driver(tell, "" if options.address else options.folder), inbox))
    finally:
        stop(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
