"""The README's promise: `modelplane up`, and the unchanged SDK chats with a real language model."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from openai import APIError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.platform_process import PlatformProcess, wait_until

MODEL = "smollm2-135m-instruct"
EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.engine, pytest.mark.ray, pytest.mark.timeout(900)]


def test_credentials_are_written_once_and_for_their_owner_only(real_platform: PlatformProcess) -> None:
    path = real_platform.home / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = real_platform.credentials
    assert set(kept) == {"base_url", "api_key", "admin_key", "organization", "project"}
    assert kept["api_key"].startswith("sk-proj-") and kept["admin_key"].startswith("sk-admin-")
    banner = "".join(real_platform.output)
    assert kept["base_url"] in banner and kept["api_key"] in banner and "curl " in banner


def test_sdk_chats(real_platform: PlatformProcess) -> None:
    answer = real_platform.sdk().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_completion_tokens=30,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_sdk_streams_the_same_text(real_platform: PlatformProcess) -> None:
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three colours."}]
    sdk = real_platform.sdk()
    whole = sdk.chat.completions.create(model=MODEL, messages=question, temperature=0, max_tokens=40)
    stream = sdk.chat.completions.create(
        model=MODEL,
        messages=question,
        temperature=0,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].usage and whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_run_as_they_stand(real_platform: PlatformProcess, example: Path) -> None:
    kept = real_platform.credentials
    environment = {**os.environ, "OPENAI_BASE_URL": kept["base_url"], "OPENAI_API_KEY": kept["api_key"]}
    done = subprocess.run(
        [sys.executable, str(example)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_replica_killed_under_load_comes_back(real_platform: PlatformProcess) -> None:
    """Requests that it held end cleanly or are answered by its replacement; what was generated is metered."""
    sdk = real_platform.sdk(max_retries=0, timeout=300)
    outcomes: list[str] = []

    def chat(client: OpenAI) -> None:
        try:
            stream = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Tell me a long story about the sea."}],
                max_tokens=400,
                stream=True,
            )
            outcomes.append("whole" if list(stream)[-1].choices[0].finish_reason else "cut")
        except APIError as error:
            outcomes.append(f"error {error.code}")

    finished = real_platform.metric("modelplane_requests_total")
    load = [threading.Thread(target=chat, args=(sdk,)) for _ in range(6)]
    for thread in load:
        thread.start()
    tokens = real_platform.metric("modelplane_tokens_total", kind="output")
    wait_until(lambda: real_platform.metric("modelplane_requests_in_flight") >= 6, 30, "the load runs")
    replica = [pid for pid in real_platform.processes() if "ray::Replica" in real_platform.command_line(pid)]
    assert len(replica) == 1
    os.kill(replica[0], signal.SIGKILL)
    for thread in load:
        thread.join(300)
    assert len(outcomes) == 6 and set(outcomes) <= {"whole", "error replica_lost"}, outcomes
    answer = real_platform.sdk(max_retries=10, timeout=300).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello!"}], max_tokens=5
    )
    assert answer.choices[0].finish_reason in {"length", "stop"}
    assert real_platform.metric("modelplane_requests_total") >= finished + 7
    assert real_platform.metric("modelplane_tokens_total", kind="output") > tokens


def test_it_stops_cleanly(real_platform: PlatformProcess) -> None:
    """The last of this file: it ends the platform of the others."""
    assert real_platform.stop(signal.SIGINT) == 0
    real_platform.assert_nothing_left()
