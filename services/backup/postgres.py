"""Runs PostgreSQL's own programs: pg_dump for a backup; pg_restore and psql for a restore, in one transaction.

The version rule: pg_dump must be as new as the server, and what it wrote goes into a server that is as new as the one
it came from, 17 at the least. The programs that come with the embedded server are taken where they are new enough, else
those on the PATH. The former know no TLS, since their library was built without; the one that the services themselves
use has the same interface and takes its place.

A password is on no command line: it is in a file for the owner only.
"""

import asyncio
import re
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.backup import statements
from services.backup.manifest import Ledger
from services.home import write_private
from services.storage import StartError
from services.storage.embedded import binaries
from services.storage.url import without_password

OLDEST_TARGET: Final = 17
SECTIONS: Final = ("pre-data", "data", "post-data")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_PLAIN: Final = ("--no-owner", "--no-privileges")


class FailedError(Exception):
    """A program of PostgreSQL ended badly; the message is what it said."""


async def dump(url: str, server: int, snapshot: str, path: Path) -> None:
    """Writes what the snapshot shows, in pg_dump's custom format. Raises StartError, FailedError."""
    command = await _program("pg_dump", server)
    options = ("--format=custom", f"--snapshot={snapshot}", "--exclude-extension=*", "--no-publications", *_PLAIN)
    with _connection(url) as conninfo:
        process = await asyncio.create_subprocess_exec(
            *command, *options, f"--file={path}", f"--dbname={conninfo}", stdin=DEVNULL, stderr=PIPE
        )
        async with _ended(process):
            await _succeeded(process, "pg_dump", await _read(process))


async def load(url: str, server: int, path: Path, ledger: Ledger, report: Callable[[str], None]) -> None:
    """Restores a dump into an empty database: all of it, or nothing. Raises StartError, FailedError."""
    reader = await _program("pg_restore", server)
    psql = await _program("psql", server)
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-")
    with _connection(url) as conninfo:
        process = await asyncio.create_subprocess_exec(
            *psql, *options, f"--dbname={conninfo}", stdin=PIPE, stdout=DEVNULL, stderr=PIPE
        )
        async with _ended(process):
            errors = asyncio.ensure_future(_read(process))
            try:
                await _feed(process, reader, path, ledger, report)
            except (BrokenPipeError, ConnectionResetError):
                pass  # psql has ended, and says why.
            except FailedError:
                errors.cancel()
                raise
            await _succeeded(process, "psql", await errors)


async def _feed(
    psql: Process, reader: Sequence[str], path: Path, ledger: Ledger, report: Callable[[str], None]
) -> None:
    """Without the last line nothing has happened."""
    assert psql.stdin
    await _tell(psql, f"BEGIN;\n{statements.GUARD}")
    for section in SECTIONS:
        report(f"restoring the database: {section}")
        await _pass_on(psql, [*reader, f"--section={section}", *_PLAIN, "--file=-", str(path)])
        if section == "data":
            await _tell(psql, statements.SETTLE)
    await _tell(psql, f"{statements.verification(ledger)}COMMIT;\n")
    psql.stdin.close()


async def _pass_on(psql: Process, command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    async with _ended(process):
        assert process.stdout and psql.stdin
        errors = asyncio.ensure_future(_read(process))
        while chunk := await process.stdout.read(1024 * 1024):
            psql.stdin.write(chunk)
            await psql.stdin.drain()
        await _succeeded(process, "pg_restore", await errors)


async def _tell(psql: Process, statements: str) -> None:
    assert psql.stdin
    psql.stdin.write(statements.encode())
    await psql.stdin.drain()


async def _read(process: Process) -> str:
    assert process.stderr
    return (await process.stderr.read()).decode(errors="replace")


async def _succeeded(process: Process, name: str, errors: str) -> None:
    if await process.wait() != 0:
        raise FailedError(f"{name} failed:\n{errors.strip()[-2000:]}")


@asynccontextmanager
async def _ended(process: Process) -> AsyncIterator[None]:
    """Nothing of it outlives the block."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextmanager
def _connection(url: str) -> Iterator[str]:
    """A connection string that everybody may see, good for the block."""
    conninfo, line = without_password(url)
    with tempfile.TemporaryDirectory(prefix="modelplane-") as folder:
        if line:
            path = Path(folder) / "password"
            write_private(path, line.encode())
            conninfo = f"{conninfo} passfile='{path}'"
        yield conninfo


async def _program(name: str, server: int) -> list[str]:
    """The command of a program that is new enough for a server of this major version. Raises StartError."""
    found = []
    for command in _candidates(name):
        process = await asyncio.create_subprocess_exec(*command, "--version", stdout=PIPE, stderr=DEVNULL)
        answer = (await process.communicate())[0].decode(errors="replace")
        if match := _VERSION.search(answer):
            if int(match[1]) >= server:
                return command
            found.append(f"{command[-1]} is of version {match[1]}")
    raise StartError(
        f"The server is PostgreSQL {server}, and there is no {name} as new ({'; '.join(found) or 'there is none'}). "
        f"Install PostgreSQL's client programs of version {server}."
    )


def _candidates(name: str) -> Iterator[list[str]]:
    try:
        bundled = binaries() / name
    except StartError:
        pass
    else:
        library = _library()
        yield ["env", f"LD_PRELOAD={library}", str(bundled)] if library else [str(bundled)]
    if path := shutil.which(name):
        yield [path]


def _library() -> Path | None:
    """PostgreSQL's client library with TLS, of the package by which the services connect."""
    spec = find_spec("psycopg_binary")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).with_name("psycopg_binary.libs").glob("libpq-*.so.*"):
            return path
    return None
