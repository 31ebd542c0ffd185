"""What the platform itself must do, whatever the model says: errors, limits, aborts, crashes, clean ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.conftest import scripted_variables
from tests.journeys.platform_process import PlatformProcess, running_platform, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


def test_operations_endpoints(scripted_platform: PlatformProcess) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(scripted_platform.url + path).status_code == 200
    sdk = scripted_platform.sdk()
    assert {"scripted-fast", "scripted-slow"} <= {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve("scripted-fast").object == "model"


def test_every_response_has_a_request_id_and_limits(scripted_platform: PlatformProcess) -> None:
    with scripted_platform.http() as http:
        body = {"model": "scripted-fast", "messages": HELLO, "stream": True}
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200 and answer.headers["x-request-id"].startswith("req_")
    for dimension in ("requests", "tokens"):
        for kind in ("limit", "remaining", "reset"):
            assert answer.headers[f"x-ratelimit-{kind}-{dimension}"]
    assert answer.text.rstrip().endswith("data: [DONE]")


def test_errors_reach_the_sdk_as_its_own(scripted_platform: PlatformProcess) -> None:
    sdk = scripted_platform.sdk(max_retries=0)
    with pytest.raises(NotFoundError) as missing:
        sdk.chat.completions.create(model="nope", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError) as refused:
        sdk.chat.completions.create(model="scripted-fast", messages=HELLO, web_search_options={})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "web_search_options")
    with pytest.raises(AuthenticationError):
        sdk.with_options(api_key="sk-proj-wrong").models.list()


def test_a_revoked_key_stops_working(scripted_platform: PlatformProcess) -> None:
    created = json.loads(run_command(scripted_platform, "keys", "create", "--name", "to be revoked", "--json"))
    key_id, secret = created["id"], created["secret"]
    sdk = scripted_platform.sdk(max_retries=0).with_options(api_key=secret)
    sdk.models.list()
    run_command(scripted_platform, "keys", "revoke", key_id)

    def refused() -> bool:
        try:
            sdk.models.list()
        except AuthenticationError:
            return True
        return False

    wait_until(refused, 5, "the revoked key is refused")


def run_command(platform: PlatformProcess, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services", *arguments],
        env={**os.environ, "MODELPLANE_HOME": str(platform.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_hang_up_aborts_at_the_engine_and_is_metered(scripted_platform: PlatformProcess) -> None:
    with scripted_platform.http() as http:
        body = {"model": "scripted-slow", "messages": HELLO, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            request_id = answer.headers["x-request-id"]
            lines = answer.iter_lines()
            for _ in range(20):
                next(lines)
    wait_until(
        lambda: scripted_platform.metric("modelplane_requests_in_flight") == 0,
        1.5,
        "the aborted request has ended",
    )
    tokens = 0

    def metered() -> bool:
        nonlocal tokens
        tokens = metered_output_tokens(scripted_platform, request_id)
        return tokens > 0

    wait_until(metered, 30, "the usage is in the ledger")
    assert 5 <= tokens < 200


def metered_output_tokens(platform: PlatformProcess, request_id: str) -> int:
    with psycopg.connect(platform.database_url) as connection:
        row = connection.execute(
            "SELECT output_tokens FROM usage_records WHERE request_id = %s", (request_id,)
        ).fetchone()
    return int(row[0]) if row else 0


def test_pool_grows_under_load_and_nothing_is_lost(scripted_platform: PlatformProcess) -> None:
    sdk = scripted_platform.sdk(max_retries=0, timeout=120)
    answers: list[str] = []

    def chat() -> None:
        answer = sdk.chat.completions.create(model="scripted-slow", messages=HELLO, max_tokens=100)
        answers.append(answer.choices[0].finish_reason)

    load = [threading.Thread(target=chat) for _ in range(24)]
    for thread in load:
        thread.start()
    wait_until(
        lambda: scripted_platform.metric("modelplane_router_replicas", model="scripted-slow") >= 2,
        60,
        "a second replica",
    )
    for thread in load:
        thread.join(120)
    assert answers == ["length"] * 24


def test_three_lives_on_one_home(tmp_path: Path) -> None:
    """It drains what is in flight when it is told to stop; killed with everything, it loses no usage; killed alone, it
    leaves nothing behind. What it was given the first time, it keeps."""
    home = tmp_path / "home"
    variables = scripted_variables(tmp_path)
    with running_platform(home, variables) as platform:
        kept = platform.credentials
        sdk = platform.sdk(max_retries=0)
        stream = sdk.chat.completions.create(
            model="scripted-slow",
            messages=HELLO,
            max_tokens=100,
            stream=True,
        )
        next(iter(stream))
        platform.process.send_signal(signal.SIGTERM)
        reasons = [chunk.choices[0].finish_reason for chunk in stream]
        assert reasons[-1] == "length"
        assert platform.process.wait(60) == 0
        platform.assert_nothing_left()

    with running_platform(home, variables) as platform:
        assert {**platform.credentials, "base_url": ""} == {**kept, "base_url": ""}
        sdk = platform.sdk(max_retries=0)
        for _ in range(30):
            sdk.chat.completions.create(model="scripted-fast", messages=HELLO)
        platform.kill_everything()

    with running_platform(home, variables) as platform:
        with psycopg.connect(platform.database_url) as connection:
            end = time.monotonic() + 60
            counted = (0, 0)
            while counted != (31, 700) and time.monotonic() < end:
                row = connection.execute("SELECT count(*), sum(output_tokens) FROM usage_records").fetchone()
                assert row
                counted = (int(row[0]), int(row[1] or 0))
        assert counted == (31, 700)
        platform.process.kill()
        platform.process.wait(30)
        platform.assert_nothing_left(30)


def test_second_platform_on_one_home_is_refused(scripted_platform: PlatformProcess) -> None:
    second = PlatformProcess(scripted_platform.home, {"MODELPLANE_CONFIG": ""})
    try:
        assert second.process.wait(60) != 0
        assert "MODELPLANE_HOME" in "".join(second.output)
    finally:
        second.kill_everything()
