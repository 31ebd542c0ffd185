"""One platform with the real model and one with scripted models, shared by the journeys that only call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.platform_process import PlatformProcess, running_platform

SCRIPTED_MODELS = """
[[models]]
name = "scripted-fast"
aliases = ["scripted-alias"]
engine = "scripted"
slots = 64
script = { tokens = 20 }
price = { input = 2.50, cached_input = 1.25, output = 10.00 }

[[models]]
name = "scripted-slow"
engine = "scripted"
slots = 4
price = { input = 0.15, cached_input = 0.075, output = 0.60 }
min_replicas = 1
max_replicas = 2
script = { tokens = 400, first_token_ms = 20, token_ms = 20 }
"""


@pytest.fixture(scope="module")
def real_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    with running_platform(tmp_path_factory.mktemp("real") / "home") as platform:
        yield platform


def scripted_variables(directory: Path) -> dict[str, str]:
    config = directory / "modelplane.toml"
    config.write_text(SCRIPTED_MODELS)
    return {"MODELPLANE_CONFIG": str(config), "MODELPLANE_POOLS_SCALE_UP_AFTER_MS": "500"}


@pytest.fixture(scope="module")
def scripted_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    directory = tmp_path_factory.mktemp("scripted")
    with running_platform(directory / "home", scripted_variables(directory)) as platform:
        yield platform
