"""The Tiltfile is evaluated as Tilt would, with builtins that only note what they were told."""

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import starlark
import yaml

from services.graph import SERVICES
from tests.cluster.processes import wait_until

ROOT = Path(__file__).parents[2]


class Tilt:
    """What was declared: the arguments of each call by the name of the builtin."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self.module = starlark.Module()
        for name in ("allow_k8s_contexts", "docker_build", "k8s_yaml", "k8s_resource"):
            self._note(name, None)
        for name in ("port_forward", "link", "sync", "run", "fall_back_on", "helm"):
            self._note(name, name)
        self.module.add_callable("read_file", lambda path: (ROOT / path).read_text())
        self.module.add_callable("read_yaml", lambda path: yaml.safe_load((ROOT / path).read_text()))

    def _note(self, name: str, kind: str | None) -> None:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.calls.setdefault(name, []).append((arguments, named))
            return {"kind": kind, "arguments": list(arguments), **named} if kind else None

        self.module.add_callable(name, noted)


@pytest.fixture(scope="module")
def tilt() -> Tilt:
    evaluated = Tilt()
    # Tilt's dialect has loops and conditions at the top level.
    dialect = starlark.Dialect.standard()
    dialect.enable_top_level_stmt = True
    ast = starlark.parse("Tiltfile", (ROOT / "Tiltfile").read_text(), dialect=dialect)
    starlark.eval(evaluated.module, ast, starlark.Globals.standard())
    return evaluated


def test_every_service_is_a_resource_with_its_ports(tilt: Tilt) -> None:
    seen: list[str] = []
    local: list[int] = []
    for (name,), options in tilt.calls["k8s_resource"]:
        assert name.startswith("modelplane-")
        ports = {forward["name"].partition(":")[0]: forward["arguments"] for forward in options["port_forwards"]}
        assert ports["grpc"][1] == 9000
        assert ports["metrics"][1] == 9002
        local += [here for here, _ in ports.values()]
        members = next(f["name"] for f in options["port_forwards"] if f["name"].startswith("grpc: "))
        seen += members.removeprefix("grpc: ").split(", ")
        assert ("api" in ports) is ("gateway" in seen[-len(members.split(",")) :])
    assert sorted(seen) == sorted(SERVICES.keys() - {"chat_inference"})
    assert len(local) == len(set(local)), "two forwards have one port"


def test_both_images_are_built_and_kept_live(tilt: Tilt) -> None:
    builds = {arguments[0]: (arguments, options) for arguments, options in tilt.calls["docker_build"]}
    assert builds.keys() == {"modelplane", "modelplane-worker"}
    ignored = (ROOT / ".dockerignore").read_text()
    for (_, context), options in builds.values():
        assert context == "."
        stages = re.findall(r"^FROM (\S+) AS (\S+)", options["dockerfile_contents"], re.MULTILINE)
        assert stages[-1][1] == options["target"] == "live"
        assert stages[-1][0] in {stage for _, stage in stages[:-1]}
        for step in options["live_update"]:
            if step["kind"] == "sync":
                here, there = step["arguments"]
                assert (ROOT / here).is_dir()
                assert f"!{here}" in ignored.split(), f"{here} is not in the image"
                assert there.startswith("/opt/project/")
            elif step["kind"] == "fall_back_on":
                assert all((ROOT / path).exists() for path in step["arguments"][0])
        assert {step["kind"] for step in options["live_update"]} == {"sync", "run", "fall_back_on"}


def test_the_release_is_the_chart_with_values_for_development(tilt: Tilt) -> None:
    [((chart,), options)] = tilt.calls["helm"]
    assert (ROOT / chart / "Chart.yaml").is_file()
    assert all((ROOT / values).is_file() for values in options["values"])
    assert len(tilt.calls["k8s_yaml"]) == 1


def test_only_clusters_for_development_are_touched(tilt: Tilt) -> None:
    [((contexts,), _)] = tilt.calls["allow_k8s_contexts"]
    assert all("prod" not in context for context in contexts)


def test_a_live_container_starts_its_process_again_and_stops_with_it(tilt: Tilt, tmp_path: Path) -> None:
    """The entry point runs as it stands there, with a program in the place of `modelplane`."""
    dockerfile = tilt.calls["docker_build"][0][1]["dockerfile_contents"]
    command: list[str] = yaml.safe_load(dockerfile.rpartition("ENTRYPOINT ")[2])
    program = tmp_path / "modelplane"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/starts\nexec sleep 60\n')
    program.chmod(0o755)
    command[2] = command[2].replace("/tmp/live.pid", f"{tmp_path}/live.pid")
    running = subprocess.Popen([*command, "serve", "a,b c"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})

    def starts() -> list[str]:
        file = tmp_path / "starts"
        return file.read_text().splitlines() if file.exists() else []

    try:
        wait_until("it starts", lambda: len(starts()) == 1, timeout_s=30)
        subprocess.run(["sh", "-c", f"kill $(cat {tmp_path}/live.pid)"], check=True)
        wait_until("it starts again", lambda: len(starts()) == 2, timeout_s=30)
        assert starts() == ["serve a,b c"] * 2
        child = int((tmp_path / "live.pid").read_text())
        running.terminate()
        started = time.monotonic()
        running.wait(30)
        # Its child would sleep for a minute.
        assert time.monotonic() - started < 30
        assert not Path(f"/proc/{child}").exists()
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(tmp_path, ignore_errors=True)
