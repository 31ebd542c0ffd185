"""A process that serves clients runs with jemalloc, and neither its children nor its user's own choice feel it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services import allocator
from services.__main__ import _serves_clients

CHOSEN = {allocator.PRELOAD, *allocator.CHOICE}

REPORT = """
import json, os, subprocess, sys
from pathlib import Path
from services.allocator import prefer_jemalloc
prefer_jemalloc()
child = subprocess.run([sys.executable, "-c", "print(open('/proc/self/maps').read())"], capture_output=True, text=True)
print(json.dumps({
    "pid": os.getpid(), "arguments": sys.argv[1:], "executable": sys.executable, "variables": dict(os.environ),
    "jemalloc": "jemalloc" in Path("/proc/self/maps").read_text(), "child": "jemalloc" in child.stdout,
}))
"""


def report(arguments: Sequence[str] = (), variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN} | dict(variables or {})
    process = subprocess.Popen(
        [sys.executable, "-c", REPORT, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    said: dict[str, Any] = json.loads(process.communicate(timeout=60)[0])
    assert said["pid"] == process.pid
    return said


def test_it_runs_with_jemalloc_as_the_same_process_and_its_children_do_not() -> None:
    said = report(["up", "--edge", "envoy"], {"MODELPLANE_PORT": "8081"})
    assert said["jemalloc"]
    assert not said["child"]
    assert not CHOSEN & said["variables"].keys()
    assert said["variables"]["MODELPLANE_PORT"] == "8081"
    assert said["arguments"] == ["up", "--edge", "envoy"]
    assert said["executable"] == sys.executable


@pytest.mark.parametrize("variable", [("PYTHONMALLOC", "pymalloc"), ("MALLOC_CONF", "narenas:1"), ("LD_PRELOAD", "")])
def test_who_has_chosen_keeps_the_choice(variable: tuple[str, str]) -> None:
    name, value = variable
    said = report(variables={name: value})
    assert not said["jemalloc"]
    assert said["variables"][name] == value


def test_without_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_libraries", lambda: iter(()))
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("there is nothing to start with"))
    allocator.prefer_jemalloc()


@pytest.mark.parametrize(
    ("arguments", "serves"),
    [
        (["up"], True),
        (["up", "--edge", "envoy"], True),
        (["serve", "auth, gateway"], True),
        (["serve", "auth,ratelimit"], False),
        (["serve"], False),
        (["keys", "list"], False),
        ([], False),
    ],
)
def test_only_what_serves_clients_is_started_anew(arguments: list[str], serves: bool) -> None:
    assert _serves_clients(arguments) is serves
