"""Models come, change and go while the platform serves: nobody's request fails but those for a model that is gone."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.journeys.platform_process import PlatformProcess, running_platform, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
STEADY = """
[[models]]
name = "steady"
engine = "scripted"
script = { tokens = 20 }
free = true
"""


def guest(text: str, **facts: str) -> str:
    return "\n".join(
        [
            *("[[models]]", 'name = "guest"', 'engine = "scripted"', "price = { input = 1.0, output = 2.0 }"),
            f'script = {{ text = "{text}", token_ms = 20 }}',
            *(f"{key} = {value}" for key, value in facts.items()),
        ]
    )


class Traffic:
    """Calls a model again and again, streaming every other time, and keeps what it said and how it failed."""

    def __init__(self, sdk: OpenAI, model: str) -> None:
        self._sdk = sdk
        self._model = model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call, daemon=True)
        self.said: list[str] = []
        self.failures: list[Exception] = []

    def _call(self) -> None:
        while not self._stop.wait(0.05):
            try:
                self.said.append(say(self._sdk, self._model))
                stream = self._sdk.chat.completions.create(model=self._model, messages=HELLO, stream=True)
                self.said.append("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
            except Exception as error:
                self.failures.append(error)

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def say(sdk: OpenAI, model: str) -> str:
    return sdk.chat.completions.create(model=model, messages=HELLO).choices[0].message.content or ""


def listed(sdk: OpenAI) -> set[str]:
    return {model.id for model in sdk.models.list()}


def answers(sdk: OpenAI, model: str) -> bool:
    try:
        return bool(say(sdk, model))
    except Exception:
        return False


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "steady.toml").write_text(STEADY)
    return folder


@pytest.fixture
def platform(tmp_path: Path, models: Path) -> Iterator[PlatformProcess]:
    variables = {
        "MODELPLANE_CONFIG": str(models),
        "MODELPLANE_CONFIG_POLL_S": "0.2",
        "MODELPLANE_RATELIMIT_ORGANIZATION_RPM": "1000000",
        "MODELPLANE_RATELIMIT_ORGANIZATION_TPM": "1000000000",
        "MODELPLANE_POOLS_SCALE_DOWN_AFTER_MS": "500",
    }
    with running_platform(tmp_path / "home", variables) as platform:
        yield platform


def test_models_come_change_and_go(platform: PlatformProcess, models: Path) -> None:
    sdk = platform.sdk(max_retries=0)
    file = models / "guest.toml"
    with Traffic(sdk, "steady").running() as steady:
        assert listed(sdk) == {"steady"}
        file.write_text(guest("the first words"))
        wait_until(lambda: answers(sdk, "guest"), 120, "the new model answers")
        assert listed(sdk) == {"steady", "guest"}

        with Traffic(sdk, "guest").running() as calls:
            wait_until(lambda: "the first words" in calls.said, 30, "it serves")
            file.write_text(guest("other words", aliases='["visitor"]'))
            wait_until(lambda: calls.said[-4:] == ["other words"] * 4, 60, "its replica is replaced")
            assert answers(sdk, "visitor")
            # What cannot be used changes nothing.
            file.write_text(guest("never", slots="0"))
            refused = {"taken": "no"}
            wait_until(lambda: platform.metric("modelplane_catalog_changes_total", **refused) >= 1, 30, "refused")
            assert listed(sdk) == {"steady", "guest"}
        assert set(calls.said) == {"the first words", "other words"} and not calls.failures

        # Asleep until somebody asks, and asleep again.
        file.write_text(guest("other words", min_replicas="0"))
        replicas = "modelplane_router_replicas"
        wait_until(lambda: platform.metric(replicas, model="guest") == 0, 30, "the idle pool is empty")
        began = time.monotonic()
        assert say(sdk, "guest") == "other words"
        assert time.monotonic() - began < 30
        wait_until(lambda: platform.metric(replicas, model="guest") == 0, 30, "it is empty again")

        file.unlink()
        wait_until(lambda: listed(sdk) == {"steady"}, 30, "the model is gone")
        with pytest.raises(NotFoundError) as missing:
            say(sdk, "guest")
        assert missing.value.code == "model_not_found"
    assert len(steady.said) > 50 and not steady.failures
