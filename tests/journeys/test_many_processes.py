"""The other wiring: the platform as several processes that know one another by address only."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from openai import AuthenticationError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.audited import assert_clean
from tests.journeys.platform_process import free_port, wait_until

pytestmark = pytest.mark.timeout(120)
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
MODEL = """
[[models]]
name = "scripted"
engine = "scripted"
script = { tokens = 30, token_ms = 10 }
price = { input = 1, output = 2 }
"""


@contextmanager
def serving(services: str, variables: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`modelplane serve` in a process of its own, which must end with status 0 on SIGTERM."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services", "serve", services], env=dict(variables), stdout=output, stderr=output
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_services_in_processes_of_their_own(database_url: str, tmp_path: Path) -> None:
    config = tmp_path / "modelplane.toml"
    config.write_text(MODEL)
    control, money, edge = (f"127.0.0.1:{free_port()}" for _ in range(3))
    http = free_port()
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")},
        "MODELPLANE_CONFIG": str(config),
        "MODELPLANE_HOME": str(tmp_path / "home"),
        "MODELPLANE_DATABASE_URL": database_url,
        "MODELPLANE_RPC_TOKEN": "a secret between services",
        "MODELPLANE_AUTH_PEPPER": "a pepper",
        "MODELPLANE_PORT": str(http),
        **{f"MODELPLANE_{name}_ADDRESS": control for name in ("AUTH", "TOKENIZER", "ROUTER")},
        **{f"MODELPLANE_{name}_ADDRESS": control for name in ("TENANTS", "MEMBERS", "KEYS")},
        **{f"MODELPLANE_{name}_ADDRESS": money for name in ("RATELIMIT", "BILLING", "COMPLETIONS")},
        **{f"MODELPLANE_{name}_ADDRESS": money for name in ("LEDGER", "REPORTS")},
    }

    def listening(address: str) -> dict[str, str]:
        return {**variables, "MODELPLANE_RPC_LISTEN": address}

    with ExitStack() as running:
        for services, own in (
            ("tenants,members,keys,auth,tokenizer,router", listening(control)),
            ("ratelimit,billing,completions,ledger,reports", listening(money)),
            ("chat_inference", variables),
            ("gateway", listening(edge)),
        ):
            running.enter_context(serving(services, own, tmp_path / f"{services}.log"))
        url = f"http://127.0.0.1:{http}"
        wait_until(lambda: answers(f"{url}/readyz"), 30, "the gateway is ready")
        made = json.loads(command(variables, "keys", "create", "--json"))
        key_id, secret = made["id"], made["secret"]
        client = OpenAI(base_url=f"{url}/v1", api_key=secret, max_retries=0)
        answer = client.chat.completions.with_raw_response.create(model="scripted", messages=HELLO)
        assert answer.parse().usage and answer.headers["x-ratelimit-limit-requests"]
        chunks = list(client.chat.completions.create(model="scripted", messages=HELLO, stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"
        command(variables, "keys", "revoke", key_id)
        with pytest.raises(AuthenticationError):
            client.models.list()
    asyncio.run(assert_clean(database_url))


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def command(variables: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services", *arguments], env=dict(variables), capture_output=True, text=True, check=True
    )
    return done.stdout
