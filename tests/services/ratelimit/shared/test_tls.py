"""Valkey behind TLS, and logins in its url."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError

import pytest
from prometheus_client import REGISTRY

from benchmarks.valkey import ValkeyServer
from services.ratelimit.buckets import BucketKey, Need, Taken
from services.ratelimit.gcra import Rate
from services.ratelimit.shared.buckets import open_shared
from services.ratelimit.shared.connection import Connection, ServerError, Unreachable, connect, tls
from services.ratelimit.shared.settings import ValkeySettings
from tests.cluster.certificates import Authority
from tests.fakes.relays import Streams, relay, server_context

KEY = BucketKey("organization", "org-1", "m", 1, "org-1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority", "stores")


@pytest.fixture
async def port(valkey: Connection, valkey_process: ValkeyServer, authority: Authority) -> AsyncIterator[int]:
    """Where Valkey speaks TLS, for the name `localhost`."""
    issued = authority.issue("server", "Valkey", names=("localhost",))

    async def dial() -> Streams:
        return await asyncio.open_connection("127.0.0.1", valkey_process.port)

    async with relay(dial, server_context(str(issued.certificate), str(issued.key))) as port:
        yield port


async def ping(url: str, ca_file: Path | None = None, folder: Path | None = None) -> bytes:
    connection = await asyncio.wait_for(connect(url, lambda: 0, partial(tls, ca_file, folder)), 30)
    try:
        answer: bytes = await connection.call("PING")
        return answer
    finally:
        connection.close("the test is over")


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
async def test_limits_are_shared_over_tls(port: int, authority: Authority, scheme: str) -> None:
    url = f"{scheme}://localhost:{port}/2"
    settings = ValkeySettings(url=url, ca_file=authority.folder / "ca.crt", timeout_ms=5000, lease_ms=0)
    async with open_shared(settings) as shared:
        assert REGISTRY.get_sample_value("modelplane_ratelimit_shared") == 1
        taken = await shared.take((Need(KEY, Rate(2, 60_000_000_000), 1),))
        assert isinstance(taken, Taken)


async def test_strangers_are_refused(port: int, authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(SSLCertVerificationError):
        await ping(f"rediss://localhost:{port}")
    with pytest.raises(SSLCertVerificationError):
        await ping(f"rediss://localhost:{port}", Authority(tmp_path / "other", "others").folder / "ca.crt")
    with pytest.raises(SSLCertVerificationError):
        await ping(f"rediss://127.0.0.1:{port}", authority.folder / "ca.crt")
    with pytest.raises(OSError, match="No such file"):
        await ping(f"rediss://localhost:{port}", tmp_path / "none.crt")


async def test_a_valkey_that_asks_for_a_certificate(
    valkey: Connection, valkey_process: ValkeyServer, authority: Authority
) -> None:
    issued = authority.issue("server", "Valkey", names=("localhost",))
    shown = authority.issue("tls", "a gateway")
    assert shown.certificate.name == "tls.crt"
    trusted = authority.folder / "ca.crt"

    async def dial() -> Streams:
        return await asyncio.open_connection("127.0.0.1", valkey_process.port)

    async with relay(dial, server_context(str(issued.certificate), str(issued.key), str(trusted))) as port:
        assert await ping(f"rediss://localhost:{port}", trusted, authority.folder) == b"PONG"
        with pytest.raises((SSLError, Unreachable, ConnectionError)):
            await ping(f"rediss://localhost:{port}", trusted)


async def test_logins(valkey: Connection, valkey_process: ValkeyServer, port: int, authority: Authority) -> None:
    here, trusted = f"127.0.0.1:{valkey_process.port}", authority.folder / "ca.crt"
    await valkey.call("ACL", "SETUSER", "gateway", "on", ">p@ss:w/rd", "~*", "+@all")
    await valkey.call("CONFIG", "SET", "requirepass", "secret")
    try:
        assert await ping(f"valkey://gateway:p%40ss%3Aw%2Frd@{here}") == b"PONG"
        assert await ping(f"valkey://:secret@{here}/1") == b"PONG"
        assert await ping(f"rediss://gateway:p%40ss%3Aw%2Frd@localhost:{port}", trusted) == b"PONG"
        for wrong in (here, f"gateway:wrong@{here}", f":wrong@{here}"):
            with pytest.raises(ServerError):
                await ping(f"valkey://{wrong}")
    finally:
        await valkey.call("CONFIG", "SET", "requirepass", "")
        await valkey.call("ACL", "DELUSER", "gateway")
