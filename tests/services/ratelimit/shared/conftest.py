"""One real Valkey for these tests, and a flushed one for each of them."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.valkey import ValkeyServer
from services.ratelimit.shared.connection import Connection, connect


@pytest.fixture(scope="session")
def valkey_process() -> Iterator[ValkeyServer]:
    """The server of this run."""
    with tempfile.TemporaryDirectory(prefix="modelplane-valkey-") as work:
        server = ValkeyServer(Path(work))
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
async def valkey(valkey_process: ValkeyServer) -> AsyncIterator[Connection]:
    """A connection to it, with nothing stored and no function loaded."""
    connection = await connect(valkey_process.url, lambda: 0)
    await connection.call("FLUSHALL")
    await connection.call("FUNCTION", "FLUSH")
    yield connection
    connection.close("the test is over")


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running server that a test may kill and start again."""
    server = ValkeyServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()
