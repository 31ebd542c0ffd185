"""Real gateways behind a real Envoy, each a process: one dies under load, another goes in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from services.xds import process
from services.xds.bootstrap import ControlPlane
from tests.audited import assert_clean
from tests.journeys.platform_process import free_port
from tests.services.xds.edges import until

pytestmark = pytest.mark.timeout(300)

CONTROL = "tenants,members,keys,auth,tokenizer,router,ratelimit,billing,completions,ledger,reports"
TOKEN = "a secret between services"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
TOKENS = 20
MODEL = f"""
[[models]]
name = "scripted"
engine = "scripted"
slots = 64
script = {{ tokens = {TOKENS}, token_ms = 10 }}
price = {{ input = 1, output = 2 }}

[[limits]]
model = "scripted"
organization_rpm = 1000000
organization_rpd = "unlimited"
organization_tpm = 1000000000
"""


@contextmanager
def serving(services: str, variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`modelplane serve` in a process of its own, which is not left behind."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "services", "serve", services], env=dict(variables), stdout=output, stderr=output
        )
    try:
        yield started
        started.terminate()
        started.wait(30)
    finally:
        started.kill()
        started.wait()


def created_key(variables: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "services", "keys", "create"]
    done = subprocess.run(command, env=dict(variables), capture_output=True, text=True, check=True)
    return next(word for word in done.stdout.split() if word.startswith("sk-"))


async def test_no_request_that_can_be_saved_fails(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(MODEL)
    control = f"127.0.0.1:{free_port()}"
    ports, edge = [free_port(), free_port(), free_port()], free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")},
        "MODELPLANE_CONFIG": str(tmp_path / "models.toml"),
        "MODELPLANE_HOME": str(tmp_path / "home"),
        "MODELPLANE_DATABASE_URL": database_url,
        "MODELPLANE_RPC_TOKEN": TOKEN,
        "MODELPLANE_AUTH_PEPPER": "a pepper",
        "MODELPLANE_XDS_GATEWAYS": ",".join(f"127.0.0.1:{port}" for port in ports),
        "MODELPLANE_XDS_HOST": "127.0.0.1",
        "MODELPLANE_XDS_HTTP_PORT": str(edge),
        **{f"MODELPLANE_{name.upper()}_ADDRESS": control for name in CONTROL.split(",")},
    }
    with ExitStack() as running:

        def start(services: str, name: str, **own: str) -> subprocess.Popen[bytes]:
            return running.enter_context(serving(services, {**variables, **own}, tmp_path / f"{name}.log"))

        start(f"{CONTROL},xds", "control", MODELPLANE_RPC_LISTEN=control)
        start("chat_inference", "replica")
        # Envoys look every two seconds.
        delays = {ports[1]: "4"}
        gateways = [
            start(
                "gateway",
                f"gateway-{port}",
                MODELPLANE_PORT=str(port),
                MODELPLANE_DRAIN_DELAY_S=delays.get(port, "0"),
            )
            for port in ports
        ]
        url = f"http://127.0.0.1:{edge}"
        async with (
            process.running(tmp_path / "envoy", ControlPlane(control, TOKEN), tmp_path / "envoy.log"),
            httpx.AsyncClient() as http,
        ):

            async def ready() -> bool:
                answers = [await answered(http, f"http://127.0.0.1:{port}/readyz") for port in ports]
                return all(answers) and await answered(http, f"{url}/readyz")

            await until(ready)
            key = await asyncio.to_thread(created_key, variables)
            load = Load(AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0))
            await load.run(gateways)
        # What Envoy had handed to the one that died is lost; every other request is answered.
        assert failures(tmp_path / "envoy.log") <= {(f"127.0.0.1:{ports[0]}", "UC")}
        assert load.outcomes["answered"] > 5 * load.clients
        assert load.outcomes.keys() <= {"answered", "lost", "cut"}, load.outcomes
    await assert_clean(database_url)


def failures(log: Path) -> set[tuple[str, str]]:
    """Where, and how as Envoy puts it, requests of clients failed."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {
        (line["gateway"], line["flags"])
        for line in lines
        if line["status"] != 200 and line["path"] == "/v1/chat/completions"
    }


class Load:
    """Clients that ask for streams and answers in one piece, while gateways die and go."""

    clients = 8

    def __init__(self, sdk: AsyncOpenAI) -> None:
        self._sdk = sdk
        self._stopping = asyncio.Event()
        self.outcomes: Counter[str] = Counter()

    @property
    def lost(self) -> int:
        return self.outcomes["lost"] + self.outcomes["cut"]

    async def run(self, gateways: list[subprocess.Popen[bytes]]) -> None:
        async with self._sdk, asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(stream=bool(number % 2)))
            await asyncio.sleep(1.5)
            gateways[0].send_signal(signal.SIGKILL)
            await asyncio.sleep(1.5)
            lost = self.lost
            gateways[1].terminate()
            assert await asyncio.to_thread(gateways[1].wait, 40) == 0
            await asyncio.sleep(0.5)
            assert self.lost == lost, "a gateway that goes in order loses nothing"
            self._stopping.set()

    async def _client(self, *, stream: bool) -> None:
        while not self._stopping.is_set():
            try:
                if stream:
                    self.outcomes[await self._stream()] += 1
                else:
                    answer = await self._sdk.chat.completions.create(model="scripted", messages=HELLO)
                    self.outcomes["answered" if answer.usage else "empty"] += 1
            except APIStatusError as error:
                body = error.body
                of_envoy = isinstance(body, dict) and str(body.get("code")).startswith("edge_")
                self.outcomes["lost" if error.status_code == 503 and of_envoy else f"{error.status_code} {body}"] += 1

    async def _stream(self) -> str:
        finished = None
        try:
            async for chunk in await self._sdk.chat.completions.create(model="scripted", messages=HELLO, stream=True):
                finished = chunk.choices[0].finish_reason or finished
        except APIConnectionError:
            return "cut"
        return "answered" if finished == "stop" else "cut"


async def answered(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False
