"""The platform's side of the Ray driver: starts it, keeps it, and ends it with everything below it.

Kept true: after `close`, none of the driver's processes is alive; a driver that dies (Ray aborts it when the
cluster is lost) is followed by a new one. It takes the replicas of a Ray that was started here with it, and they are
reported as ended. On a cluster they live on, and those are reported as ended that the new driver does not find.
"""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from services import telemetry
from services.pools.messages import Command, Connected, DriverOptions, Ended, Event, Start
from services.pools.sessions import end_session
from services.pools.settings import Settings

log = telemetry.logger(__name__)

DRIVER = (sys.executable, "-m", "services.pools.driver")
# Rest before another driver is started; doubled while Ray does not come up.
RESTART_PAUSE_S = 1.0
RESTART_PAUSE_MAX_S = 60.0


class Fleet(Protocol):
    """Runs replicas somewhere. Each `Start` is followed by exactly one `Ended`, and by nothing after that.

    Where `outlived` is true its replicas go on after `close`; `Connected` then names those that run already.
    """

    @property
    def outlived(self) -> bool: ...

    async def open(self, accept: Callable[[Event], None]) -> None:
        """Begins; every event is given to `accept`, from the event loop."""
        ...

    def send(self, command: Command) -> None: ...

    async def close(self) -> None:
        """Ends every replica at once, unless it is `outlived`, and frees everything."""
        ...


class RayFleet:
    """Replicas as Ray actors, behind a driver process. `home` gets Ray's token and the logs."""

    def __init__(self, settings: Settings, home: Path, driver: Sequence[str] = DRIVER) -> None:
        self._settings = settings
        self._home = home.absolute()
        self._driver = driver
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        # Commands that no driver has got yet, and replicas that one was told to start.
        self._waiting: list[Command] = []
        self._running: set[str] = set()
        self._connected = False

    @property
    def outlived(self) -> bool:
        return bool(self._settings.ray_address)

    async def open(self, accept: Callable[[Event], None]) -> None:
        self._keeper = asyncio.create_task(self._keep(accept))

    def send(self, command: Command) -> None:
        if self._connected and self._process and self._process.stdin:
            if isinstance(command, Start):
                self._running.add(command.replica_id)
            self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        else:
            self._waiting.append(command)

    async def close(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self, accept: Callable[[Event], None]) -> None:
        pause_s = RESTART_PAUSE_S
        while True:
            folder = self._make_folder()
            connected = False
            try:
                connected = await self._drive(accept, folder)
            finally:
                await asyncio.shield(asyncio.create_task(self._end(folder)))
            log.error("the Ray driver ended; it is started again", replicas="live on" if self.outlived else "ended")
            if not self.outlived:
                ended = {command.replica_id for command in self._waiting if isinstance(command, Start)} | self._running
                self._running.clear()
                self._waiting.clear()
                self._report(accept, ended)
            pause_s = RESTART_PAUSE_S if connected else min(2 * pause_s, RESTART_PAUSE_MAX_S)
            await asyncio.sleep(pause_s)

    def _report(self, accept: Callable[[Event], None], ended: set[str]) -> None:
        what = "the cluster does not have it any more" if self.outlived else "the Ray driver ended"
        for replica_id in sorted(ended):
            accept(Ended(replica_id, f"{what} (see {self._home / 'logs' / 'ray.log'})"))

    async def _drive(self, accept: Callable[[Event], None], folder: Path) -> bool:
        """Runs one driver process to its end. Returns whether it had found Ray."""
        options = DriverOptions(
            address=self._settings.ray_address,
            folder=str(folder),
            token_file=self._token_file(),
            namespace=self._settings.ray_namespace,
            abandoned_after_s=self._settings.abandoned_after_ms / 1000,
            replica_host=self._settings.replica_host,
            object_store_bytes=self._settings.object_store_bytes,
            stop_timeout_s=self._settings.stop_timeout_ms / 1000,
        )
        logs = self._home / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "ray.log").open("ab") as output:
            self._process = process = await asyncio.create_subprocess_exec(
                *self._driver,
                msgspec.json.encode(options).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        assert process.stdout is not None
        decoder = msgspec.json.Decoder(Event)
        async for line in process.stdout:
            event = decoder.decode(line)
            if isinstance(event, Connected):
                found = {replica.replica_id for replica in event.found}
                lost, self._running = self._running - found, found
                self._report(accept, lost)
                accept(event)
                self._on_connected(event)
                continue
            if isinstance(event, Ended):
                self._running.discard(event.replica_id)
            accept(event)
        return self._connected

    def _on_connected(self, event: Connected) -> None:
        log.info("Ray is connected", ms=event.duration_ms, address=self._settings.ray_address or "started here")
        self._connected = True
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            self.send(command)

    async def _end(self, folder: Path) -> None:
        """Ends the driver in order, and whatever it leaves behind by force."""
        process, self._process = self._process, None
        connected, self._connected = self._connected, False
        if process is not None:
            if process.stdin:
                process.stdin.close()
            # What it still says is read on, or it would wait for us to read.
            reading = asyncio.create_task(process.stdout.read()) if process.stdout else None
            timeout_s = self._settings.stop_timeout_ms / 1000
            if connected:
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), timeout_s)
            left = await asyncio.to_thread(end_session, process.pid, timeout_s)
            if left:
                log.error("processes of Ray are left behind", pids=left)
            await process.wait()
            if reading:
                await reading
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        (self._home / "ray-folder").unlink(missing_ok=True)

    def _token_file(self) -> str:
        """The secret that Ray's processes ask of one another; Ray's default would be in the user's home."""
        if self._settings.ray_address:
            return str(self._settings.ray_token_file or "")
        path = self._home / "ray-token"
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        return str(path)

    def _make_folder(self) -> Path:
        """A new folder for Ray's files; the last one is removed, should a killed platform have left it."""
        note = self._home / "ray-folder"
        with suppress(FileNotFoundError):
            shutil.rmtree(note.read_text(), ignore_errors=True)
        # Ray makes sockets in it, whose paths may have 107 bytes: the home may lie too deep.
        folder = tempfile.mkdtemp(prefix="modelplane-ray-", dir="/tmp")
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(folder)
        return Path(folder)
