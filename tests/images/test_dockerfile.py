"""What the images promise: everything pinned, no user with rights, and nothing in the build but what it needs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_stage_starts_from_the_one_pinned_base() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages}
    assert {"services", "worker"} <= names
    assert {start for start, _ in stages} - names == {"${BASE}"}
    assert re.search(r"^ARG BASE=\S+:\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_what_is_installed_is_held_to_its_hashes() -> None:
    installs = re.findall(r"pip install .*", DOCKERFILE)
    own = [line for line in installs if "--no-build-isolation" in line]
    assert len(own) == 1
    assert all("--require-hashes" in line for line in installs if line not in own)


@pytest.mark.parametrize("target", ["services", "worker"])
def test_both_images_run_as_a_user_without_rights(target: str) -> None:
    assert user_of(target) == "65532:65532"


def user_of(stage: str) -> str:
    """The last USER of a stage, or of the one that it starts from."""
    found = re.search(rf"^FROM (\S+) AS {stage}$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found, f"no stage {stage}"
    start, text = found.groups()
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    return str(users[-1]) if users else user_of(start)


def test_the_build_gets_nothing_that_it_does_not_name() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
