"""The rehearsal: a backup of a platform under load becomes another platform, with the same keys and the same money."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.journeys.conftest import scripted_variables
from tests.journeys.platform_process import PlatformProcess, running_platform, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
RECORDS = "SELECT request_id, output_tokens, input_tokens, project_id, key_id, nanodollars FROM usage_records"
CHATS = 4


def test_a_backup_under_load_becomes_another_platform(tmp_path: Path) -> None:
    variables = scripted_variables(tmp_path)
    with running_platform(tmp_path / "home", variables) as platform:
        credentials = platform.credentials
        with load(platform):
            wait_until(lambda: len(rows(platform, RECORDS)) > 20, 30, "usage is in the ledger")
            before = rows(platform, RECORDS)
            done = modelplane(tmp_path / "home", variables, "backup", str(tmp_path / "backups"))
        assert done.returncode == 0, done.stderr
        platform.assert_audited()
        everything = rows(platform, RECORDS)
        balances = rows(platform, "SELECT organization_id, account FROM balances")
    backup = Path(done.stdout.splitlines()[0])
    seen = json.loads((backup / "manifest.json").read_text())

    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(tmp_path / "home" / "secrets.json", restored)
    refuse_damaged(backup, tmp_path, variables)
    done = modelplane(restored, variables, "restore", str(backup))
    assert done.returncode == 0, done.stderr

    with running_platform(restored, variables) as platform:
        assert modelplane(restored, variables, "audit").returncode == 0
        found = rows(platform, RECORDS)
        # All that was in the ledger, and what was on its way to it: never another sum, never twice.
        assert set(before) <= set(found)
        assert (
            seen["ledger"]["usage_records"] <= len(found) <= seen["ledger"]["usage_records"] + seen["spooled_records"]
        )
        ended = [record for record in found if record in set(everything)]
        assert len(found) - len(ended) <= CHATS
        assert sum(nanodollars for *_, nanodollars in ended) >= seen["ledger"]["nanodollars"]
        assert set(rows(platform, "SELECT organization_id, account FROM balances")) == set(balances)
        with httpx.Client(base_url=platform.url, headers=bearer(credentials["api_key"]), timeout=60) as http:
            assert chat(http, "scripted-fast").status_code == 200


@contextmanager
def load(platform: PlatformProcess) -> Iterator[None]:
    """Chats that end and chats that run, for the length of the block."""
    stop = threading.Event()

    def chats(model: str) -> None:
        with platform.http() as http:
            while not stop.is_set():
                chat(http, model)

    threads = [
        threading.Thread(target=chats, args=(name,)) for name in ("scripted-fast", "scripted-slow") * (CHATS // 2)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def chat(http: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}
    return http.post("/v1/chat/completions", json=body)


def refuse_damaged(backup: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    damaged = shutil.copytree(backup, tmp_path / "damaged")
    with (damaged / "database.dump").open("r+b") as file:
        file.seek(1000)
        file.write(b"oops")
    home = tmp_path / "untouched"
    done = modelplane(home, variables, "restore", str(damaged))
    assert (done.returncode, home.exists()) == (3, False)
    assert "database.dump is damaged" in done.stderr


def modelplane(home: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables, "MODELPLANE_HOME": str(home)}
    command = [sys.executable, "-m", "services", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def rows(platform: PlatformProcess, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(platform.database_url) as connection:
        return connection.execute(query.encode()).fetchall()
