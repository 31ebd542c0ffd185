"""The machine's own server: started, killed in every way, refused twice, wherever its home lies."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from services.storage import StartError
from services.storage.embedded import EmbeddedServer, processes_in

PLATFORM = Path(__file__).parents[3]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to leave root")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent")

# A platform of its own process, for tests that kill it.
HOLDER = """
import asyncio, sys
from pathlib import Path
from services.storage.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), durable=False)
    try:
        await server.start()
        print(server.url, flush=True)
        await asyncio.Event().wait()
    finally:
        await server.stop()

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that other users may enter, which pytest's own folder is not."""
    path = Path(tempfile.mkdtemp(prefix="modelplane-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(home, durable=False)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def holder(home: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(home), cwd=PLATFORM, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await until_gone(home)


async def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


def kill_all(home: Path) -> None:
    for process in processes_in(home / "postgres"):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


async def until_gone(home: Path) -> None:
    async with asyncio.timeout(60):
        while processes_in(home / "postgres"):
            await asyncio.sleep(0.02)


async def test_what_was_written_is_there_after_a_restart(home: Path) -> None:
    async with running(home) as server:
        await execute(server.url, "CREATE TABLE kept AS SELECT 1 AS n")
        assert await execute(server.url, "SHOW server_version_num") >= [("180000",)]
        assert (home / "run").stat().st_mode & 0o777 == 0o700
    assert processes_in(home / "postgres") == []
    async with running(home) as server:
        assert await execute(server.url, "SELECT n FROM kept") == [(1,)]


async def test_a_second_start_in_the_same_home_is_refused(home: Path) -> None:
    async with running(home) as server:
        with pytest.raises(StartError, match=f"in use by another Modelplane .process {os.getpid()}"):
            async with running(home):
                pass
        assert await execute(server.url, "SELECT 1") == [(1,)]


async def test_a_long_home_keeps_its_socket_elsewhere(home: Path) -> None:
    async with running(home / ("x" * 100)) as server:
        (row,) = await execute(server.url, "SHOW unix_socket_directories")
        folder = Path(str(row[0]))
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


async def test_an_interrupted_first_start_is_begun_anew(home: Path) -> None:
    (home / "postgres.partial" / "base").mkdir(parents=True)
    async with running(home) as server:
        assert await execute(server.url, "SELECT 1") == [(1,)]


async def test_a_failed_start_shows_the_servers_own_words(home: Path) -> None:
    (home / "postgres").mkdir(mode=0o700)
    with pytest.raises(StartError, match=r"postgresql\.conf"):
        async with running(home):
            pass


@LINUX
async def test_a_killed_server_is_started_again_with_its_data(home: Path) -> None:
    async with running(home) as server:
        await execute(server.url, "CREATE TABLE kept AS SELECT 1 AS n")
        kill_all(home)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await execute(server.url, "SELECT n FROM kept") == [(1,)]
                    break
                except psycopg.OperationalError:
                    await asyncio.sleep(0.02)


@LINUX
async def test_kill_of_everything_leaves_a_home_that_starts(home: Path) -> None:
    async with holder(home) as (platform, url):
        await execute(url, "CREATE TABLE kept AS SELECT 1 AS n")
        platform.send_signal(signal.SIGSTOP)  # it would start the server again
        kill_all(home)
        platform.kill()
        await platform.wait()
    assert (home / "postgres" / "postmaster.pid").exists()
    # The worst a pid file can say: a process that lives, and is somebody else's.
    lines = (home / "postgres" / "postmaster.pid").read_text().splitlines()
    (home / "postgres" / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:], ""]))
    async with running(home) as server:
        assert await execute(server.url, "SELECT n FROM kept") == [(1,)]


@LINUX
async def test_a_killed_platform_leaves_no_postgres(home: Path) -> None:
    async with holder(home) as (platform, url):
        assert await execute(url, "SELECT 1") == [(1,)]
        assert processes_in(home / "postgres")
        platform.kill()
        await platform.wait()
        await until_gone(home)
    assert "fast shutdown" in (home / "logs" / "postgres.log").read_text()


@LINUX
async def test_a_start_waits_for_a_server_that_is_still_ending(home: Path) -> None:
    async with holder(home) as (platform, url), await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 200000) AS n")
        await connection.commit()
        platform.kill()
        await platform.wait()
        async with running(home) as server:
            assert await execute(server.url, "SELECT count(*) FROM kept") == [(200000,)]


@LINUX
async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home: Path) -> None:
    async with holder(home) as (platform, _):
        groups = {os.getpgid(process) for process in processes_in(home / "postgres")}
        assert os.getpgid(platform.pid) not in groups


@AS_ROOT
@LINUX
async def test_root_can_start_below_a_folder_of_its_own(home: Path) -> None:
    home.chmod(0o700)
    inner = home / "clone" / ".modelplane"
    async with running(inner) as server:
        assert await execute(server.url, "SELECT 1") == [(1,)]
        assert (inner / "postgres").stat().st_uid == 0


# A root whose namespaces are refused, as in most containers: full of users, but out of user namespaces.
CONTAINER = """
import ctypes, os, sys
from pathlib import Path

outside, inside = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(outside[1], b"x")
    os.read(inside[0], 1)
    os.setgid(0)
    os.setuid(0)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
os.read(outside[0], 1)
for name in ("uid_map", "gid_map"):
    Path(f"/proc/{child}/{name}").write_text("0 0 65536")
os.write(inside[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

VISIT = """
import asyncio, sys
from pathlib import Path
import psycopg
from services.storage.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), durable=False)
    try:
        await server.start()
        with psycopg.connect(server.url) as connection:
            print(connection.execute("SELECT 1").fetchone())
    finally:
        await server.stop()

asyncio.run(main())
"""


async def visit_in_container(home: Path) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CONTAINER, "-c", VISIT, str(home)),
        cwd=PLATFORM,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return output.decode(), errors.decode()


@AS_ROOT
@LINUX
async def test_root_without_namespaces_runs_as_nobody(home: Path) -> None:
    output, errors = await visit_in_container(home)
    if "is out of its reach" in errors and "postgres is" in errors:
        pytest.skip("this checkout lies where only root may go")
    assert "(1,)" in output, errors
    assert (home / "postgres").stat().st_uid not in (0, os.geteuid())
    async with running(home) as server:  # and back to a machine that has them
        assert await execute(server.url, "SELECT 1") == [(1,)]


@AS_ROOT
@LINUX
async def test_a_home_out_of_nobodys_reach_is_named(home: Path) -> None:
    home.chmod(0o700)
    _, errors = await visit_in_container(home)
    assert "out of its reach" in errors
