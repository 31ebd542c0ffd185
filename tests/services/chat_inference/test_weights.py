"""A replica prepares the default model where it is missing, and only there."""

import asyncio
import sys
from pathlib import Path

import pytest

from services.catalog import DEFAULT_MODEL, ModelSpec
from services.chat_inference import weights

# Stands in for the conversion: as the real one it takes `--cache DIR`, and what it makes is complete at once.
CONVERSION = """
import fcntl, pathlib, sys
models = pathlib.Path(sys.argv[2]) / "models"
models.mkdir(parents=True, exist_ok=True)
with (models / ".lock").open("w") as lock, (models / "calls").open("a") as calls:
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = models / "smollm2-135m-instruct"
    if not folder.exists():
        calls.write("converted\\n")
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
print("prepared")
"""


@pytest.fixture
def conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PREPARE", (sys.executable, "-c", CONVERSION))


async def test_replicas_that_start_at_once_prepare_it_once(tmp_path: Path, conversion: None) -> None:
    told: list[str] = []
    await asyncio.gather(*(weights.prepare(DEFAULT_MODEL, tmp_path, told.append) for _ in range(3)))
    assert told == ["prepared"] * 3
    assert (tmp_path / "models" / "calls").read_text() == "converted\n"
    await weights.prepare(DEFAULT_MODEL, tmp_path, told.append)
    assert len(told) == 3


@pytest.mark.parametrize(
    "spec", [ModelSpec(name="other"), ModelSpec(name="s", engine="scripted", checkpoint=DEFAULT_MODEL.name)]
)
async def test_other_models_are_left_alone(tmp_path: Path, conversion: None, spec: ModelSpec) -> None:
    await weights.prepare(spec, tmp_path, lambda step: None)
    assert not (tmp_path / "models").exists()


async def test_what_went_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PREPARE", (sys.executable, "-c", "import sys; sys.exit('no package')"))
    with pytest.raises(RuntimeError, match="could not be prepared: no package"):
        await weights.prepare(DEFAULT_MODEL, tmp_path, lambda step: None)
