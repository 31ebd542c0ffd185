"""Modelplane as a user starts it: `modelplane up`, with the scripted engine as the instant model.

Authentication, limits (set out of reach), metering and billing are on, with all other settings at their
defaults. What LiteLLM's process does, the platform's own process does; its PostgreSQL is counted beside it. The
scripted replicas stand where the fake server stands for the others, and Ray's processes keep them alive.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.conversation import TOKENS
from benchmarks.fake_openai import MODEL
from benchmarks.processes import Process, tree
from benchmarks.servers import PYTHON, ROOT, Command, Role, Target, free_port, serve

STEPWISE_MODEL = "bench-stepwise"
# Both models do what the fake server does: a plain answer is there whole, at once (without any delay the scripted
# engine says many tokens in one turn of its loop); a streamed one comes token by token, each in its own turn (with
# the shortest delay), so that there are 50 pieces to carry and not three.
CONFIG = f"""
[[models]]
name = "{MODEL}"
engine = "scripted"
context_tokens = 8192
price = {{ input = 0.15, cached_input = 0.075, output = 0.60 }}
slots = 64
script = {{ tokens = {TOKENS}, first_token_ms = 0.0, token_ms = 0.0 }}

[[models]]
name = "{STEPWISE_MODEL}"
engine = "scripted"
context_tokens = 8192
price = {{ input = 0.15, cached_input = 0.075, output = 0.60 }}
slots = 64
script = {{ tokens = {TOKENS}, first_token_ms = 0.001, token_ms = 0.0 }}
"""
OUT_OF_REACH: Final = {
    f"MODELPLANE_RATELIMIT_{scope}_{unit}": str(limit)
    for scope in ("ORGANIZATION", "PROJECT")
    for unit, limit in (("RPM", 1_000_000_000), ("TPM", 1_000_000_000_000))
}


def version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


@contextmanager
def modelplane(work: Path) -> Iterator[Target]:
    """The platform on one machine with a scripted replica of each model, ready to be asked."""
    home, config, port = work / "modelplane-home", work / "models.toml", free_port()
    config.write_text(CONFIG)
    environment = OUT_OF_REACH | {
        "MODELPLANE_HOME": str(home),
        "MODELPLANE_PORT": str(port),
        "MODELPLANE_CONFIG": str(config),
    }
    command: Command = [PYTHON.parent / "modelplane", "up"]
    ready_url = f"http://127.0.0.1:{port}/readyz"
    with serve(
        command, environment=environment, log=work / "modelplane.log", ready_url=ready_url, timeout_s=180
    ) as pid:
        credentials = json.loads((home / "credentials.json").read_text())
        yield Target("modelplane", port, credentials["api_key"], MODEL, STEPWISE_MODEL, lambda: _roles(pid))


def _roles(root: int) -> Mapping[Role, list[Process]]:
    roles: dict[Role, list[Process]] = {"gateway": [], "database": [], "upstream": [], "ray": []}
    for process in tree(root).values():
        roles[_role(process, root)].append(process)
    return roles


def _role(process: Process, root: int) -> Role:
    """By what the process calls itself: PostgreSQL and Ray name theirs; a replica is a Ray actor of that name."""
    command = process.command
    program = Path(command.split(" ")[0]).name
    if process.pid == root:
        return "gateway"
    if program.startswith("postgres"):
        return "database"
    if command.startswith("ray::Replica"):
        return "upstream"
    # The driver, services.pools.driver, is in Ray's family: it starts and watches replicas and sees no request.
    return "ray" if "ray" in command or "services.pools.driver" in command else "gateway"
