"""The process that is connected to Ray: starts and ends replicas as it is told, and reports what becomes of them.

Kept true: it lives in a session of its own; when its standard input ends, because the platform closed it or was
killed, everything in that session ends with it within `stop_timeout_s`, and the folder that Ray wrote to goes. On a
Ray that is started here that is every replica. On a cluster replicas are kept by name: the next driver finds them.
Run as `python -m services.pools.driver OPTIONS`; speaks as `messages` says.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    Found,
    Kill,
    Phase,
    Start,
    Waiting,
)
from services.pools.sessions import adopt_orphans, end_session, reap

# On a cluster, what a replica takes that asks for no CPU: so that it runs on no node that offers none, as ours.
LEAST_CPUS = 0.001
# Time between two looks at why a replica has no process yet.
EXPLAIN_S = 1.0
# How long a replica that was found may take to say what it is.
DESCRIBE_S = 15.0


class Driver:
    """Runs the commands. `tell` sends an event to the platform."""

    def __init__(self, tell: Callable[[Event], None], options: DriverOptions) -> None:
        self._tell = tell
        self._options = options
        self._cluster = bool(options.address)
        self._actors: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, found: Iterable[tuple[Any, Found]]) -> None:
        """Follows replicas that an earlier driver started."""
        for actor, replica in found:
            self._actors[replica.replica_id] = actor
            self._spawn(self._follow(replica.replica_id, actor))

    def handle(self, command: Command) -> None:
        match command:
            case Start():
                self._spawn(self._start(command))
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

    async def _start(self, command: Start) -> None:
        self._tell(Phase(command.replica_id, 0, "waiting for a process"))
        try:
            actor = self._actors[command.replica_id] = self._actor(command)
        except Exception as failure:
            self._tell(Ended(command.replica_id, _reason(failure)))
            return
        explaining = asyncio.create_task(self._explain(command))
        await self._follow(command.replica_id, actor, explaining)

    def _actor(self, command: Start) -> Any:
        import ray

        from services.pools.replica import Replica

        options = self._options
        kept = {"name": command.replica_id, "namespace": options.namespace, "lifetime": "detached"}
        actor_class = ray.remote(
            num_cpus=command.cpus or (LEAST_CPUS if self._cluster else 0),
            num_gpus=command.gpus,
            resources=command.resources or None,
            **(kept if self._cluster else {}),
        )(Replica)
        folder, abandoned_after_s = ("", options.abandoned_after_s) if self._cluster else (options.folder, 0.0)
        threads = os.environ.get("OMP_NUM_THREADS")
        return actor_class.remote(command, threads, folder, options.replica_host, abandoned_after_s)

    async def _follow(self, replica_id: str, actor: Any, explaining: "asyncio.Task[None] | None" = None) -> None:
        """One replica to its end, whichever way it ends."""
        import ray

        error, heard, ended = "", 0, False
        try:
            while not ended:
                try:
                    said, ended = await actor.follow.remote(heard)
                except ray.exceptions.ActorUnavailableError:
                    # Its machine cannot be reached; Ray decides whether it is dead.
                    await asyncio.sleep(EXPLAIN_S)
                    continue
                if explaining:
                    explaining.cancel()
                heard += len(said)
                for status in said:
                    self._tell(status)
        except Exception as failure:  # whatever ended it, it has ended
            error = _reason(failure)
        finally:
            if explaining:
                explaining.cancel()
        self._kill(replica_id)
        self._actors.pop(replica_id, None)
        self._tell(Ended(replica_id, error))

    async def _explain(self, command: Start) -> None:
        """Says why the replica has no process, again when that changes, until it is cancelled."""
        told: Waiting | None = None
        while True:
            await asyncio.sleep(EXPLAIN_S)
            with suppress(Exception):  # what Ray cannot say now it says later
                found = await asyncio.to_thread(_waiting, command)
                if found != told:
                    self._tell(found)
                    told = found


def _waiting(command: Start) -> Waiting:
    import ray

    needs = {"CPU": command.cpus, "GPU": command.gpus, **command.resources}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    reason, crowded = waits_for(needs, nodes, ray.available_resources())
    return Waiting(command.replica_id, reason, crowded)


def waits_for(
    needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]], free: Mapping[str, float]
) -> tuple[str, bool]:
    """Why a replica with such needs has no process, and whether it is because others take what it needs."""
    needed = {name: amount for name, amount in needs.items() if amount > 0}
    for name, amount in needed.items():
        if not any(node.get(name, 0.0) >= amount for node in nodes):
            return f"no node offers {_amount(name, amount)}", False
    if needed and not any(all(node.get(name, 0.0) >= amount for name, amount in needed.items()) for node in nodes):
        return f"no node offers {' and '.join(_amount(*need) for need in needed.items())} together", False
    for name, amount in needed.items():
        if free.get(name, 0.0) < amount:
            return f"no node has {_amount(name, amount)} free", True
    return "waiting for a process", False


def _amount(name: str, amount: float) -> str:
    return name if amount == 1 and name not in ("CPU", "GPU") else f"{amount:g} {name}"


def _reason(failure: Exception) -> str:
    """One line that says why a replica ended, without Ray's own words around it."""
    cause = getattr(failure, "cause", None) or failure
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else 'no reason given'}"[:500]


def connect(options: DriverOptions) -> None:
    """Connects to Ray as a node of its own that offers nothing, or starts it: on 127.0.0.1 only, silent, with its
    files under the given folder."""
    local = not options.address
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.pop("RAY_ADDRESS", None)
    if options.token_file:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = options.token_file
    if local:
        # Ray's switch for staying on the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # Ray lowers the priority of its workers, but here they are what the machine is for.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray would kill a replica when other programs fill the machine's memory.
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    else:
        _join(options)
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
        # The folder tells our node from others on this machine.
        else {"address": options.address, "_temp_dir": options.folder, "namespace": options.namespace}
    )
    ray.init(log_to_driver=False, logging_level="warning", **extra)


def _join(options: DriverOptions) -> None:
    """Starts a Ray node of the cluster in this session, where no replica has room. Raises CalledProcessError."""
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--address", options.address),
        *("--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", str(options.object_store_bytes)),
        *("--temp-dir", options.folder, "--disable-usage-stats"),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def find(options: DriverOptions) -> list[tuple[Any, Found]]:
    """The replicas that run on the cluster. One that does not answer is ended, since it could not be told to."""
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in named if actor["namespace"] == options.namespace]
    found: list[tuple[Any, Found]] = []
    asked: list[tuple[Any, Any]] = []
    for name in names:
        with suppress(ValueError):  # it ended meanwhile
            actor = ray.get_actor(name, namespace=options.namespace)
            asked.append((actor, actor.describe.remote()))
    if asked:
        ray.wait([answer for _, answer in asked], num_returns=len(asked), timeout=DESCRIBE_S)
    for actor, answer in asked:
        try:
            found.append((actor, ray.get(answer, timeout=0)))
        except Exception:
            with suppress(Exception):
                ray.kill(actor)
    return found


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


async def serve(driver: Driver, found: Iterable[tuple[Any, Found]], inbox: "asyncio.Queue[Command | None]") -> None:
    driver.adopt(found)
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
        found = find(options) if options.address else []
        tell(Connected(round((time.monotonic() - began) * 1000), tuple(replica for _, replica in found)))
        loop.run_until_complete(serve(Driver(tell, options), found, inbox))
    finally:
        stop(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
