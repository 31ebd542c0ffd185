"""Two gateways, a billing service of its own, two replicas, PostgreSQL and Valkey: each a process that may be killed.

One gateway has its leaf services beside it, as on Kubernetes by default; the other reaches billing over gRPC. What is
killed is started again on the same address and home, as an orchestrator would.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from benchmarks.valkey import ValkeyServer
from services.storage.embedded import EmbeddedServer
from tests.cluster.certificates import Authority
from tests.journeys.platform_process import free_port
from tests.services.rpc.authorities import Secret

MODEL = "scripted"
TOKENS = 60
CONFIG = f"""
[[models]]
name = "{MODEL}"
engine = "scripted"
slots = 32
script = {{ tokens = {TOKENS}, first_token_ms = 5, token_ms = 10 }}
price = {{ input = 2.50, cached_input = 1.25, output = 10.00 }}

[[limits]]
model = "{MODEL}"
organization_rpm = 1000000
organization_rpd = "unlimited"
organization_tpm = 1000000000
"""
CONTROL = "tenants,members,keys,tokenizer,router,ledger,reports"
NEAR = "auth,ratelimit,billing,completions,gateway"
FAR = "auth,ratelimit,gateway"
MONEY = "billing,completions"


class Member:
    """One `modelplane serve` process."""

    def __init__(self, name: str, services: str, variables: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._services = services
        self._variables = dict(variables)
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        # True while whoever keeps the fleet running should start it again when it ends.
        self.wanted = False
        # Where the log of the running process begins.
        self._begun = 0
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Unless it runs."""
        self.wanted = True
        with self._one_at_a_time:
            if self.process is None or self.process.poll() is not None:
                self._start()

    def _start(self) -> None:
        with self._log.open("ab") as output:
            self._begun = output.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services", "serve", self._services],
                env=self._variables,
                stdout=output,
                stderr=output,
            )

    def serving(self) -> bool:
        """True once the running process has started; before that it would not end in order."""
        with self._log.open("rb") as log:
            log.seek(self._begun)
            return b'"event":"serving"' in log.read()

    def kill(self) -> None:
        """As a crash does."""
        self.wanted = False
        with self._one_at_a_time:
            if self.process is not None:
                self.process.kill()
                self.process.wait()

    def stop(self) -> int:
        """As an orchestrator does; gives the exit status."""
        self.wanted = False
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


class Fleet:
    """Everything, in a folder. Made by `running_fleet`."""

    def __init__(self, folder: Path, postgres_home: Path, postgres: EmbeddedServer, valkey: ValkeyServer) -> None:
        self.postgres_home = postgres_home
        self.valkey = valkey
        config = folder / "models.toml"
        config.write_text(CONFIG)
        control, money, near, far = (f"127.0.0.1:{free_port()}" for _ in range(4))
        ports = free_port(), free_port()
        self.urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")},
            "MODELPLANE_CONFIG": str(config),
            "MODELPLANE_HOME": str(folder / "home"),
            "MODELPLANE_DATABASE_URL": postgres.url,
            "MODELPLANE_VALKEY_URL": valkey.url,
            "MODELPLANE_RPC_TOKEN": "a secret between services",
            "MODELPLANE_RPC_TLS_FOLDER": str(Secret(folder / "tls", Authority(folder / "authority", "ours")).folder),
            "MODELPLANE_AUTH_PEPPER": "a pepper",
            "MODELPLANE_GRACE_S": "10",
            # A gateway may wait so long for billing to come back on a busy machine, and what it then tells counts.
            "MODELPLANE_GATEWAY_SETTLE_TIMEOUT_S": "10",
            "MODELPLANE_BILLING_ORPHAN_S": "12",
            **{f"MODELPLANE_{service.upper()}_ADDRESS": control for service in CONTROL.split(",")},
            **{f"MODELPLANE_{service.upper()}_ADDRESS": money for service in MONEY.split(",")},
            # For commands.
            "MODELPLANE_RATELIMIT_ADDRESS": near,
        }

        def member(name: str, services: str, **own: str) -> Member:
            return Member(name, services, {**self.variables, **own}, folder / f"{name}.log")

        self.members = {
            made.name: made
            for made in (
                member("control", CONTROL, MODELPLANE_RPC_LISTEN=control),
                # Two processes that take up each other's spool when one dies.
                member("money", MONEY, MODELPLANE_RPC_LISTEN=money),
                member("near", NEAR, MODELPLANE_RPC_LISTEN=near, MODELPLANE_PORT=str(ports[0])),
                member("far", FAR, MODELPLANE_RPC_LISTEN=far, MODELPLANE_PORT=str(ports[1])),
                member("replica-1", "chat_inference"),
                member("replica-2", "chat_inference"),
            )
        }
        self.spool = folder / "home" / "spool"

    async def kill(self, victim: str, down_s: float) -> None:
        """Kills one and has it back after `down_s` (PostgreSQL's own supervisor decides that itself)."""
        if victim == "postgres":
            pid = (self.postgres_home / "postgres" / "postmaster.pid").read_text().split()[0]
            os.kill(int(pid), signal.SIGKILL)
            return
        target: Member | ValkeyServer = self.valkey if victim == "valkey" else self.members[victim]
        target.kill()
        await asyncio.sleep(down_s)
        await asyncio.to_thread(target.start)

    async def keep_running(self) -> None:
        """Starts what ended by itself, such as a service that found no database when it started, for ever."""
        while True:
            await asyncio.sleep(0.3)
            for member in self.members.values():
                if member.wanted and member.process is not None and member.process.poll() is not None:
                    await asyncio.to_thread(member.start)

    async def ready(self, timeout_s: float = 240) -> None:
        async with asyncio.timeout(timeout_s), httpx.AsyncClient() as http:
            for member in self.members.values():
                while not await asyncio.to_thread(member.serving):
                    await asyncio.sleep(0.1)
            for url in self.urls:
                while not await _answers(http, f"{url}/readyz"):
                    await asyncio.sleep(0.1)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the CLI, against this fleet."""
        return subprocess.run(
            [sys.executable, "-m", "services", *arguments],
            check=False,
            env=self.variables,
            capture_output=True,
            text=True,
        )

    async def drained(self, timeout_s: float = 60) -> None:
        """Waits until nothing waits in any spool."""
        async with asyncio.timeout(timeout_s):
            while any(path.stat().st_size for path in self.spool.iterdir() if path.is_file()):
                await asyncio.sleep(0.2)


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


@asynccontextmanager
async def running_fleet(folder: Path, home: Path) -> AsyncIterator[Fleet]:
    """The fleet, ready. `home` is PostgreSQL's, whose path must be short."""
    postgres, valkey = EmbeddedServer(home), ValkeyServer(folder)
    fleet: Fleet | None = None
    keeping: asyncio.Task[None] | None = None
    try:
        await postgres.start()
        valkey.start()
        fleet = Fleet(folder, home, postgres, valkey)
        for member in fleet.members.values():
            member.start()
        keeping = asyncio.create_task(fleet.keep_running())
        await fleet.ready()
        yield fleet
    finally:
        if keeping is not None:
            keeping.cancel()
        for member in fleet.members.values() if fleet else ():
            with contextlib.suppress(ProcessLookupError):
                member.kill()
        valkey.kill()
        await postgres.stop()
