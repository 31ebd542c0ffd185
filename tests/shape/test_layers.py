"""import-linter holds the layers; each of its rules is shown to catch what it is for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")
SOURCE = shutil.ignore_patterns("__pycache__", "*.so")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the source that imports are read from."""
    shutil.copytree(ROOT / "services", tmp_path / "services", ignore=SOURCE)
    shutil.copytree(ROOT / "operators", tmp_path / "operators", ignore=SOURCE)
    shutil.copytree(ROOT / "protos" / "modelplane", tmp_path / "modelplane", ignore=SOURCE)
    # Else the installed package of that name would be read in its place.
    for folder in [tmp_path / "modelplane", *(tmp_path / "modelplane").glob("**/")]:
        (folder / "__init__.py").touch()
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def lint(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [LINTER, "--no-cache", "--no-logo"], cwd=tree, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


# What is added to which module, and the rule that it breaks.
PLANTED = [
    ("services/auth/cache.py", "import services.billing.spool", "layers"),
    ("services/gateway/models.py", "from services.router import service", "layers"),
    ("services/compose.py", "import services.auth.service", "layers"),
    ("services/rpc/serve.py", "import services.storage.database", "layers"),
    ("services/settings.py", "import services.telemetry", "layers"),
    ("services/up.py", "def f():\n    import services.__main__", "layers"),
    ("services/new_module.py", '"""A module that no layer names."""', "layers"),
    ("modelplane/auth/v1/auth_api.py", "import services.faults", "contracts know no service"),
    ("services/settings.py", "import operators.metrics", "no service imports an operator"),
    ("operators/metrics/api.py", "import services.pools.scaling", "operators import no service"),
    ("services/gateway/sse.py", "import grpc", "only rpc imports grpc"),
    ("services/telemetry.py", "def f():\n    import grpc_health", "only rpc imports grpc"),
    ("services/auth/service.py", "import psycopg", "only stores and storage import the database library"),
    ("services/router/pool.py", "from sqlalchemy import text", "only stores and storage import the database library"),
    ("services/router/pool.py", "import ray", "only pools imports ray"),
    ("services/router/pool.py", "import aiohttp", "only cluster asks Kubernetes"),
    ("services/chat_inference/runs.py", "import torch", "only engine adapters import engines"),
    ("services/tokenizer/models.py", "def f():\n    import transformers", "only engine adapters import engines"),
]


def test_planted_violations_are_caught(tree: Path) -> None:
    status, output = lint(tree)
    assert status == 0, output
    for path, text, rule in PLANTED:
        original = (tree / path).read_text() if (tree / path).exists() else None
        (tree / path).write_text(f"{original or ''}\n{text}\n")
        status, output = lint(tree)
        assert status != 0, f"{text!r} in {path} was not caught"
        assert f"{rule} BROKEN" in output, output
        if original is None:
            (tree / path).unlink()
        else:
            (tree / path).write_text(original)
