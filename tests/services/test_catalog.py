"""The configured models."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from services.catalog import (
    DEFAULT_MODEL,
    Catalog,
    Derived,
    ModelSpec,
    ScriptSpec,
    checkpoint_directory,
    generation,
)
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
        ("[[models]]\nname = ''", "needs a name"),
        ("[[models]]\nname = 'a'\nsurge = 2", "surge is 0 or 1"),
        ("[[models]]\nname = 'a'\nresources = { x = 0 }", "amounts above 0"),
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


def folder(path: Path, **files: str) -> Catalog:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / f"{name}.toml").write_text(text)
    return Catalog.load(PlatformSettings(config=path))


def test_a_folder(tmp_path: Path) -> None:
    assert list(folder(tmp_path)) == []
    (tmp_path / "notes.txt").write_text("[[")
    (tmp_path / ".hidden.toml").write_text("[[")
    catalog = folder(
        tmp_path,
        b='[[models]]\nname = "second"\n[[limits]]\nmodel = "second"\norganization_rpm = 1',
        a='[[models]]\nname = "first"\n[[limits]]\nmodel = "first"\norganization_rpm = 2',
    )
    assert [spec.name for spec in catalog] == ["first", "second"]
    assert [table["model"] for table in catalog.tables["limits"]] == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[models]]\nname = "a"', "'a' is configured twice"),
        ('[[models]]\nname = "b"\naliases = ["a"]', "'a' is configured twice"),
        ('title = "two"', "b.toml: 'title' is in another file too"),
        ('[[models]]\nname = "b"\nslots = 0', "b.toml: b: 0 <= min_replicas"),
    ],
)
def test_a_folder_that_contradicts_itself(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        folder(tmp_path, a='title = "one"\n[[models]]\nname = "a"', b=text)


def test_what_a_replica_depends_on_makes_another_generation() -> None:
    spec = ModelSpec(name="m")
    beside = replace(spec, aliases=("x",), max_replicas=9, free=True, owned_by="us", surge=0, target_tokens_per_s=5)
    assert generation(beside) == generation(spec)
    for changed in (
        replace(spec, checkpoint="/other"),
        replace(spec, engine_args={"dtype": "float32"}),
        replace(spec, slots=3),
        replace(spec, default_temperature=0.5),
        replace(spec, resources={"pool-m": 1}),
        replace(spec, revision="2"),
    ):
        assert generation(changed) != generation(spec)
    assert generation(replace(spec, engine_args={"a": 1, "b": 2})) == generation(
        replace(spec, engine_args={"b": 2, "a": 1})
    )


def test_it_takes_over_another_and_tells() -> None:
    kept, gone = ModelSpec(name="kept", aliases=("k",)), ModelSpec(name="gone")
    catalog = Catalog((kept, gone))
    names = Derived(catalog, lambda models: {spec.name: spec.slots for spec in models})
    told: list[list[str]] = []
    end = catalog.subscribe(lambda: told.append([spec.name for spec in catalog]))
    catalog.replace(Catalog((ModelSpec(name="kept", aliases=("k",)), ModelSpec(name="new", slots=3)), {"limits": []}))
    assert told == [["kept", "new"]]
    assert catalog.get("k") is kept and catalog.get("gone") is None
    assert dict(names) == {"kept": 64, "new": 3} and catalog.tables == {"limits": []}
    end()
    catalog.replace(Catalog(()))
    assert len(told) == 1 and not names
