"""`make up EDGE=envoy`: the platform on one machine with a real Envoy in front of its gateway."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.platform_process import PlatformProcess, running_platform, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
MODEL = """
[[models]]
name = "scripted"
engine = "scripted"
script = { tokens = 40, token_ms = 50 }
price = { input = 1, output = 2 }
"""


def envoys(platform: PlatformProcess) -> list[int]:
    return [pid for pid in platform.processes() if "envoy.json" in platform.command_line(pid)]


def test_the_platform_behind_an_envoy(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text(MODEL)
    with running_platform(tmp_path / "home", {"MODELPLANE_CONFIG": str(config)}, "--edge", "envoy") as platform:
        sdk = platform.sdk()
        answer = sdk.chat.completions.with_raw_response.create(model="scripted", messages=HELLO)
        assert answer.parse().usage
        assert "x-envoy-upstream-service-time" in answer.headers
        hidden = httpx.get(f"{platform.url}/metrics")
        assert hidden.status_code == 404
        assert hidden.json()["error"]["code"] == "edge_404"

        # An Envoy that ends is there again.
        [envoy] = envoys(platform)
        os.kill(envoy, signal.SIGKILL)
        wait_until(lambda: envoys(platform) not in ([], [envoy]), 30, "another Envoy")
        wait_until(lambda: answers(f"{platform.url}/healthz"), 30, "it answers")

        # What is in flight is finished, through it, and then it is gone too.
        stream = iter(sdk.chat.completions.create(model="scripted", messages=HELLO, stream=True))
        pieces = [next(stream)]
        platform.process.send_signal(signal.SIGTERM)
        pieces += stream
        assert pieces[-1].choices[0].finish_reason == "stop"
        assert platform.process.wait(60) == 0
        platform.assert_nothing_left()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        platform = PlatformProcess(
            tmp_path / "home", {"MODELPLANE_PORT": str(taken.getsockname()[1])}, "--edge", "envoy"
        )
        assert platform.process.wait(60) == 2
        platform.kill_everything()
        assert "set MODELPLANE_PORT" in "".join(platform.output)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
