"""The catalogue follows its files."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from services.catalog import Catalog
from services.following import following
from services.settings import PlatformSettings

POLL_S = 0.02


def model(name: str, **facts: int) -> str:
    return "\n".join(["[[models]]", f'name = "{name}"', *(f"{key} = {value}" for key, value in facts.items())])


def refused() -> float:
    return REGISTRY.get_sample_value("modelplane_catalog_changes_total", {"taken": "no"}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_file_is_followed_and_what_cannot_be_used_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "models.toml"
    config.write_text(model("a"))
    settings = PlatformSettings(config=config, config_poll_s=POLL_S)
    catalog = Catalog.load(settings)
    first = catalog.get("a")
    async with following(catalog, settings):
        config.write_text(model("a") + "\n" + model("b"))
        await until(lambda: catalog.get("b") is not None)
        assert catalog.get("a") is first
        before = refused()
        config.write_text(model("a", slots=0))
        await until(lambda: refused() == before + 1)
        config.unlink()
        await until(lambda: refused() == before + 2)
        assert [spec.name for spec in catalog] == ["a", "b"]
        # It is said once, not at every look.
        await asyncio.sleep(5 * POLL_S)
        assert refused() == before + 2
        told = "".join(str(record.__dict__) for record in caplog.records)
        assert "1 <= slots" in told and "No such file" in told
        # As editors do it.
        (tmp_path / "new").write_text(model("a", slots=7))
        (tmp_path / "new").rename(config)
        await until(lambda: catalog.get("b") is None)
        changed = catalog.get("a")
        assert changed is not None and changed.slots == 7
    config.write_text(model("c"))
    await asyncio.sleep(5 * POLL_S)
    assert catalog.get("c") is None


async def test_a_mounted_folder_changes_at_once(tmp_path: Path) -> None:
    """As Kubernetes mounts it: files are links through `..data`, which moves to the new contents."""

    def publish(version: str, files: dict[str, str]) -> None:
        (tmp_path / version).mkdir()
        for name, text in files.items():
            (tmp_path / version / name).write_text(text)
            if not (tmp_path / name).is_symlink():
                (tmp_path / name).symlink_to(f"..data/{name}")
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    publish("..1", {"a.toml": model("a"), "b.toml": model("b")})
    settings = PlatformSettings(config=tmp_path, config_poll_s=POLL_S)
    catalog = Catalog.load(settings)
    seen: list[list[str]] = []
    catalog.subscribe(lambda: seen.append([spec.name for spec in catalog]))
    async with following(catalog, settings):
        # A name moves from one file to the other, which half of the change would refuse.
        publish("..2", {"a.toml": model("b"), "b.toml": model("a"), "c.toml": model("c")})
        await until(lambda: bool(seen))
        assert seen == [["b", "a", "c"]]
        publish("..3", {})
        await until(lambda: len(seen) == 2)
        assert seen[1] == []


async def test_a_change_between_the_first_reading_and_the_first_look_is_seen(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text(model("a"))
    settings = PlatformSettings(config=config, config_poll_s=POLL_S)
    catalog = Catalog.load(settings)
    config.write_text(model("b"))
    async with following(catalog, settings):
        await until(lambda: catalog.get("b") is not None)


async def test_half_a_file_is_not_taken(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text(model("a") + "\n" + model("b"))
    settings = PlatformSettings(config=config, config_poll_s=1.0)
    catalog = Catalog.load(settings)
    seen: list[list[str]] = []
    catalog.subscribe(lambda: seen.append([spec.name for spec in catalog]))
    async with following(catalog, settings):
        await asyncio.sleep(0.3)
        with config.open("w") as file:
            for name in "abc":
                file.write(model(name) + "\n")
                file.flush()
                await asyncio.sleep(0.03)
        await until(lambda: bool(seen))
    assert seen == [["a", "b", "c"]]
