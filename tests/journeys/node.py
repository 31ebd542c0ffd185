"""Runs a script with the official Node SDK, installed from its lock into a cache folder."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.journeys.platform_process import PlatformProcess

FOLDER = Path(__file__).parent / "node"


def run_node(script: Path, platform: PlatformProcess, *arguments: str) -> dict[str, Any]:
    """What the script printed, a JSON object."""
    kept = platform.credentials
    environment = {**os.environ, "OPENAI_BASE_URL": kept["base_url"], "OPENAI_API_KEY": kept["api_key"]}
    # Node finds packages beside the script or above it.
    placed = shutil.copy(script, _installed())
    done = subprocess.run(
        ["node", placed, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _installed() -> Path:
    """The folder with the packages of the lock, made when there is none yet."""
    lock = (FOLDER / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "modelplane" / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, folder)
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True, timeout=300
        )
        (folder / "done").touch()
    return folder
