"""Two gateways, each with its own limiter, and one Valkey: a limit is one limit, whoever asks and whatever dies."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest

from benchmarks.valkey import ValkeyServer
from tests.journeys.platform_process import free_port, wait_until
from tests.journeys.test_many_processes import HELLO, answers, command, serving

pytestmark = pytest.mark.timeout(120)
MODEL: Final = """
[[models]]
name = "scripted"
engine = "scripted"
slots = 64
free = true
script = { tokens = 1 }
"""
PER_MINUTE: Final = 300
LEAST: Final = 0.97
CONTROL: Final = "tenants,members,keys,tokenizer,router,billing,completions,ledger,reports"
EDGE: Final = "auth,ratelimit,gateway"


class Gateway(NamedTuple):
    """A gateway in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]

    def ready(self) -> bool:
        return answers(f"{self.url}/readyz")

    def shares(self) -> bool:
        """Whether its limiter decides in Valkey."""
        return "modelplane_ratelimit_shared 1.0" in httpx.get(f"{self.url}/metrics").text


class Edge(NamedTuple):
    """What the tests have to do with: the gateways and the Valkey that they share, and a key with the one limit."""

    gateways: tuple[Gateway, Gateway]
    valkey: ValkeyServer
    key: str
    operator: dict[str, str]
    """The environment of the operator's commands."""


class Hammer:
    """Clients that ask one gateway as fast as it answers, until it dies or the time is over."""

    def __init__(self, url: str, key: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.lost = 0
        self.last_answer_s = 0.0
        self._url = url
        self._key = key
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        body = {"model": "scripted", "messages": HELLO}
        with httpx.Client(base_url=self._url, headers={"Authorization": f"Bearer {self._key}"}, timeout=60) as http:
            while not self._over.is_set():
                try:
                    status = http.post("/v1/chat/completions", json=body).status_code
                except httpx.TransportError:
                    self.lost += 1
                    return
                self.statuses[status] += 1
                self.last_answer_s = time.monotonic()


def at_most(elapsed_s: float) -> float:
    """What a full bucket lets through."""
    return PER_MINUTE + elapsed_s * PER_MINUTE / 60


@pytest.fixture
def edge(database_url: str, tmp_path: Path) -> Iterator[Edge]:
    valkey = ValkeyServer(tmp_path)
    with ExitStack() as running:
        running.callback(valkey.kill)
        valkey.start()
        config = tmp_path / "modelplane.toml"
        config.write_text(MODEL)
        control, *edges = (f"127.0.0.1:{free_port()}" for _ in range(3))
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")},
            "MODELPLANE_CONFIG": str(config),
            "MODELPLANE_HOME": str(tmp_path / "home"),
            "MODELPLANE_DATABASE_URL": database_url,
            "MODELPLANE_VALKEY_URL": valkey.url,
            "MODELPLANE_RPC_TOKEN": "a secret between services",
            "MODELPLANE_AUTH_PEPPER": "a pepper",
            **{f"MODELPLANE_{name.upper()}_ADDRESS": control for name in CONTROL.split(",")},
        }
        log = tmp_path / "control.log"
        running.enter_context(serving(CONTROL, {**variables, "MODELPLANE_RPC_LISTEN": control}, log))
        running.enter_context(serving("chat_inference", variables, tmp_path / "replica.log"))
        gateways = []
        for address in edges:
            port = free_port()
            own = {**variables, "MODELPLANE_RPC_LISTEN": address, "MODELPLANE_PORT": str(port)}
            process = running.enter_context(mortal(own, tmp_path / f"gateway-{port}.log"))
            gateways.append(Gateway(f"http://127.0.0.1:{port}", process))
        for gateway in gateways:
            wait_until(gateway.ready, 30, "the gateway is ready")
        operator = {**variables, "MODELPLANE_RATELIMIT_ADDRESS": edges[0]}
        key = json.loads(command(operator, "keys", "create", "--json"))["secret"]
        command(operator, "limits", "set", "scripted", f"rpm={PER_MINUTE}")
        yield Edge((gateways[0], gateways[1]), valkey, key, operator)


@contextmanager
def mortal(variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway that a test may kill."""
    with ExitStack() as running:
        process = running.enter_context(serving(EDGE, variables, log))
        yield process
        if process.poll() == -signal.SIGKILL:
            running.pop_all()


def test_two_gateways_grant_one_limit(edge: Edge) -> None:
    hammers = [Hammer(gateway.url, edge.key) for gateway in edge.gateways]
    started_s = time.monotonic()
    for hammer in hammers:
        hammer.start()
    time.sleep(6)
    asked_s = time.monotonic() - started_s
    for hammer in hammers:
        hammer.stop()
    elapsed_s = max(hammer.last_answer_s for hammer in hammers) - started_s
    statuses = sum((hammer.statuses for hammer in hammers), Counter[int]())
    assert set(statuses) == {200, 429} and not any(hammer.lost for hammer in hammers)
    print(f"{statuses}, at most {at_most(elapsed_s):.1f}, asked for {asked_s:.2f} s")
    assert statuses[200] <= at_most(elapsed_s)
    assert statuses[200] >= LEAST * at_most(asked_s) - 1
    assert all(hammer.statuses[200] > PER_MINUTE / 10 for hammer in hammers)


def test_a_revoked_key_stops_at_both(edge: Edge) -> None:
    made = json.loads(command(edge.operator, "keys", "create", "--json"))
    headers = {"Authorization": f"Bearer {made['secret']}"}

    def statuses() -> set[int]:
        return {httpx.get(f"{gateway.url}/v1/models", headers=headers).status_code for gateway in edge.gateways}

    assert statuses() == {200}
    command(edge.operator, "keys", "revoke", made["id"])
    wait_until(lambda: statuses() == {401}, 5, "both refuse it")


def test_a_killed_gateway_and_a_restarted_valkey(edge: Edge) -> None:
    first, second = edge.gateways
    dying, living = (Hammer(gateway.url, edge.key) for gateway in edge.gateways)
    started_s = time.monotonic()
    dying.start()
    living.start()
    time.sleep(1)
    first.process.kill()
    time.sleep(3)
    granted = dying.statuses[200] + living.statuses[200]
    elapsed_s = time.monotonic() - started_s
    print(f"{dying.statuses} {living.statuses}, at most {at_most(elapsed_s):.1f}")
    # What the dead gateway had on a lease, and had granted but not answered, is gone.
    assert LEAST * at_most(elapsed_s) - PER_MINUTE / 10 <= granted <= at_most(elapsed_s)
    edge.valkey.kill()
    wait_until(lambda: not second.shares(), 30, "the gateway is on its own")
    edge.valkey.start()
    wait_until(second.shares, 30, "the limits are shared again")
    before = living.statuses[200]
    wait_until(lambda: living.statuses[200] > before, 30, "the gateway still grants")
    living.stop()
    dying.stop()
    assert set(living.statuses) == {200, 429} and not living.lost
    assert set(dying.statuses) <= {200, 429}
