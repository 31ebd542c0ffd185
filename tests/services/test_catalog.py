"""The configured models."""

from pathlib import Path

import pytest

from services.catalog import DEFAULT_MODEL, Catalog, ModelSpec, ScriptSpec, checkpoint_directory
from services.settings import PlatformSettings, SettingsError

FILE = """
[[models]]
name = "small"
aliases = ["s", "tiny"]
checkpoint = "/models/small"
owned_by = "us"
created_at = 5
context_tokens = 4096
min_replicas = 0
max_replicas = 3
slots = 8
default_output_tokens = 100
gpus = 1
engine_args = { dtype = "bfloat16" }

[[models]]
name = "words"
engine = "scripted"
script = { tokens = 7, first_token_ms = 1, token_ms = 0.5 }
"""


def load(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return Catalog.load(PlatformSettings(config=path))


def test_without_a_file_the_default_model_is_served() -> None:
    catalog = Catalog.load(PlatformSettings())
    assert list(catalog) == [DEFAULT_MODEL]
    assert (DEFAULT_MODEL.engine, DEFAULT_MODEL.min_replicas, DEFAULT_MODEL.max_replicas) == ("vllm", 1, 1)


def test_a_file(tmp_path: Path) -> None:
    catalog = load(tmp_path, FILE)
    small, words = catalog
    assert small == ModelSpec(
        name="small",
        aliases=("s", "tiny"),
        checkpoint="/models/small",
        owned_by="us",
        created_at=5,
        context_tokens=4096,
        min_replicas=0,
        max_replicas=3,
        slots=8,
        default_output_tokens=100,
        gpus=1.0,
        engine_args={"dtype": "bfloat16"},
    )
    assert words.script == ScriptSpec(tokens=7, first_token_ms=1.0, token_ms=0.5)
    for name in ("small", "s", "tiny"):
        assert catalog.get(name) is small
    assert catalog.get("Small") is None


def test_the_scripted_engine_has_to_be_asked_for() -> None:
    assert ModelSpec(name="x").engine == "vllm"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"add at least one \[\[models\]\] table"),
        ("[[models]]", "missing required field `name`"),
        ("[[models]]\nname = 5", "Expected `str`"),
        ("[[models]]\nname = 'a'\nengine = 'magic'", "Invalid enum value 'magic'"),
        ("[[models]]\nname = 'a'\nslot = 5", "unknown field `slot`"),
        ("[[models]]\nname = 'a'\nslots = 0", "1 <= slots"),
        ("[[models]]\nname = 'a'\nmin_replicas = 2", "min_replicas <= max_replicas"),
        ("[[models]]\nname = 'a'\nmin_replicas = 0\nmax_replicas = 0", "1 <= max_replicas"),
        ("[[models]]\nname = 'a'\n[[models]]\nname = 'b'\naliases = ['a']", "'a' is configured twice"),
        ("[[models]\n", "MODELPLANE_CONFIG"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_CONFIG"):
        Catalog.load(PlatformSettings(config=tmp_path / "missing.toml"))


def test_where_weights_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, here = tmp_path / "cache", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert checkpoint_directory(ModelSpec(name="m"), cache) == cache / "models" / "m"
    assert checkpoint_directory(ModelSpec(name="m", checkpoint="prepared"), cache) == cache / "models" / "prepared"
    assert checkpoint_directory(ModelSpec(name="m", checkpoint="/weights"), cache) == Path("/weights")
    (here / "own").mkdir()
    assert checkpoint_directory(ModelSpec(name="m", checkpoint="own"), cache) == Path("own")
