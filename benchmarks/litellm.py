"""LiteLLM's proxy as its documentation advises for production, in an environment of its own.

Fair to LiteLLM: one worker on uvloop and httptools, logging at ERROR, no database (so no keys to look up and no
spend to write: fewer duties than Modelplane has), no callbacks; a master key, so that it authenticates.
Version 1.106.2 was chosen knowingly: 1.82.7 and 1.82.8 carried malware in March 2026, so the lock holds releases
at least three weeks old, each by its hash, and the process gets none of the caller's secrets in its environment.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.conversation import UPSTREAM_KEY
from benchmarks.processes import tree
from benchmarks.servers import PYTHON, ROOT, Command, Target, free_port, serve

ENVIRONMENT = ROOT / ".cache" / "bench-litellm"
LOCK = ROOT / "benchmarks" / "litellm.lock"
MASTER_KEY = "sk-bench-master"
PRODUCTION: Final = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


def install() -> None:
    """Makes the environment hold exactly what the lock says; takes a second when it already does."""
    uv = str(PYTHON.parent / "uv")
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", PYTHON, ENVIRONMENT], check=True, cwd=ROOT)
    sync: Command = [
        uv,
        "pip",
        "sync",
        "--quiet",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--python",
        python,
        LOCK,
    ]
    subprocess.run(sync, check=True, cwd=ROOT, env={**os.environ, "UV_LINK_MODE": "copy"})


def version() -> str:
    pins = [line.split()[0] for line in LOCK.read_text().splitlines() if line.startswith("litellm==")]
    return pins[0].removeprefix("litellm==")


@contextmanager
def litellm(work: Path, upstream: Target) -> Iterator[Target]:
    """The proxy in front of `upstream`, one worker, ready to be asked."""
    install()
    config = {
        "model_list": [
            {
                "model_name": upstream.model,
                "litellm_params": {
                    "model": f"openai/{upstream.model}",
                    "api_base": f"http://127.0.0.1:{upstream.port}/v1",
                    "api_key": UPSTREAM_KEY,
                },
            }
        ],
        "litellm_settings": {"request_timeout": 600, "set_verbose": False, "telemetry": False},
        "general_settings": {"master_key": MASTER_KEY},
    }
    path = work / "litellm.yaml"
    path.write_bytes(msgspec.json.encode(config))  # JSON is YAML
    port = free_port()
    command: Command = [ENVIRONMENT / "bin" / "litellm", "--config", path, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", "1", "--telemetry", "False"]
    ready_url = f"http://127.0.0.1:{port}/health/readiness"
    with serve(
        command,
        environment=PRODUCTION | {"HOME": str(work)},
        log=work / "litellm.log",
        ready_url=ready_url,
        timeout_s=120,
    ) as pid:
        yield Target(
            "litellm",
            port,
            MASTER_KEY,
            upstream.model,
            upstream.streamed_model,
            lambda: {"gateway": list(tree(pid).values()), **upstream.roles()},
        )
