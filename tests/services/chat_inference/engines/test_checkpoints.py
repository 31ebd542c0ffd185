"""A prepared model is whole, is what was reviewed, and is made anew when it is not."""

import multiprocessing
from pathlib import Path

import pytest

from services.chat_inference.engines import checkpoints
from services.chat_inference.engines.checkpoints import CheckpointError, damage, prepare, sha256


def write(source: Path, folder: Path) -> None:
    """A conversion that takes no time."""
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(source.name.encode())


def again(source: Path, folder: Path) -> None:
    raise AssertionError("converted twice")


def test_it_is_made_once_and_made_anew_when_it_changed(tmp_path: Path) -> None:
    told: list[str] = []
    folder = prepare(tmp_path, told.append, write)
    assert damage(folder) is None
    assert folder == tmp_path / "models" / "smollm2-135m-instruct"
    assert prepare(tmp_path, told.append, again) == folder
    assert "prepared already" in told[-1]
    (folder / "model.safetensors").write_bytes(b"something else")
    assert damage(folder) == "model.safetensors has changed since it was written"
    prepare(tmp_path, told.append, write)
    assert damage(folder) is None
    assert any("model.safetensors has changed" in step for step in told)


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    folder = prepare(tmp_path, print, write)
    (folder / name).unlink()
    assert damage(folder) == f"{name} is missing"
    prepare(tmp_path, print, write)
    assert damage(folder) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "source_sha256": "", "files": {}}'])
def test_a_manifest_that_means_nothing_is_noticed(tmp_path: Path, text: str) -> None:
    folder = prepare(tmp_path, print, write)
    (folder / "manifest.json").write_text(text)
    assert damage(folder)


def test_an_interrupted_conversion_leaves_nothing_half_made(tmp_path: Path) -> None:
    def interrupted(source: Path, folder: Path) -> None:
        write(source, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, print, interrupted)
    (tmp_path / "models" / ".smollm2-135m-instruct-killed").mkdir()
    prepare(tmp_path, print, write)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        ".smollm2-135m-instruct.lock",
        "smollm2-135m-instruct",
    ]


def test_only_the_reviewed_weights_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sha256(checkpoints.packaged_gguf()) == checkpoints.GGUF_SHA256
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF")
    monkeypatch.setattr(checkpoints, "packaged_gguf", lambda: other)
    with pytest.raises(CheckpointError, match="not the file that was reviewed"):
        prepare(tmp_path, print, again)


def test_two_at_once_convert_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=note, args=(tmp_path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("converted-*"))) == 1


def note(cache: Path, number: int) -> None:
    def convert(source: Path, folder: Path) -> None:
        (cache / f"converted-{number}").touch()
        write(source, folder)

    prepare(cache, print, convert)
