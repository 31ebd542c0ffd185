"""The load generator and the fake server against each other, as processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import load
from benchmarks.servers import Target, fake_openai


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    log_directory: Path = tmp_path_factory.mktemp("fake")
    with fake_openai(log_directory) as target:
        yield target


@pytest.mark.parametrize("stream", [False, True])
async def test_every_response_is_right_and_timed(fake: Target, stream: bool) -> None:
    result = await load(fake.port, fake.key, fake.model, connections=4, seconds=0.2, stream=stream)
    assert result.failure == ""
    assert result.responses == len(result.latency_us) == len(result.first_us) >= 4
    assert len(result.texts) == 1
    assert all(0 < first <= last for first, last in zip(result.first_us, result.latency_us, strict=True))


@pytest.mark.parametrize(("key", "model"), [("sk-wrong", "bench"), ("", "other")])
async def test_a_refusal_ends_the_run_as_a_failure(fake: Target, key: str, model: str) -> None:
    result = await load(fake.port, key or fake.key, model, connections=2, seconds=5, stream=False)
    assert "status 400" in result.failure
    assert result.elapsed_s < 5
    assert result.responses == 0
