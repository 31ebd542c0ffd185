"""What the contract test cannot see from outside: outages, restarts, what is logged, and what guessing costs."""

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from modelplane.auth.v1 import auth_pb2
from modelplane.keys.v1 import keys_pb2
from modelplane.keys.v1.keys_api import KeysService
from services.auth.service import Auth, serving
from services.auth.settings import AuthSettings
from services.faults import Unauthenticated, Unavailable
from services.key_format import RANDOM_BYTES, KeySettings, generate
from services.keys import service as keys_service
from services.keys.journal import Journal
from services.keys.service import Keys
from services.keys.settings import KeysSettings
from services.keys.store import KeysStore
from services.rpc.connect import connect, descriptor_of
from services.rpc.serve import RpcServer
from services.rpc.settings import RpcSettings
from services.storage import Database
from services.storage.embedded import EmbeddedServer
from services.storage.migrate import upgrade
from tests.contract.tenancy import listening, write

PEPPER = KeySettings()


@asynccontextmanager
async def keys_on(database: Database, journal: Path) -> AsyncIterator[Keys]:
    async with keys_service.serving(KeysStore(database), Journal(journal), PEPPER, KeysSettings(retry_s=0.1)) as keys:
        yield keys


async def make(keys: KeysService) -> keys_pb2.CreateKeyResponse:
    return await keys.create_key(
        keys_pb2.CreateKeyRequest(organization_id="org-1", project_id="proj_1", kind=auth_pb2.KEY_KIND_PROJECT)
    )


def asking(key: str, address: str = "") -> auth_pb2.AuthenticateRequest:
    return auth_pb2.AuthenticateRequest(key=key, address=address)


async def until_refused(auth: Auth, key: str, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                await auth.authenticate(asking(key))
            except Unauthenticated:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def keys(database: Database, tmp_path: Path) -> AsyncIterator[Keys]:
    await write(database)
    async with keys_on(database, tmp_path / "revocations.jsonl") as keys:
        await listening(keys, database)
        yield keys


@pytest.fixture
async def auth(keys: Keys) -> AsyncIterator[Auth]:
    async with serving(Auth(keys, PEPPER, AuthSettings())) as auth:
        yield auth


async def processes(server: EmbeddedServer, home: Path) -> list[int]:
    """Of the server, those that serve connections too."""
    async with await psycopg.AsyncConnection.connect(server.url) as connection:
        found = await (await connection.execute("SELECT pid FROM pg_stat_activity")).fetchall()
    return [int((home / "postgres" / "postmaster.pid").read_text().split()[0]), *(row[0] for row in found)]


@asynccontextmanager
async def outage(server: EmbeddedServer, home: Path, hangs: bool) -> AsyncIterator[None]:
    """The database is gone, or takes what it is asked and never answers."""
    if not hangs:
        await server.stop()
        yield
        await server.start()
        return
    stopped = await processes(server, home)
    try:
        for process in stopped:
            with suppress(ProcessLookupError):  # the connection that asked has ended
                os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("hangs", [False, True], ids=["stopped", "hangs"])
async def test_a_key_is_revoked_everywhere_within_a_second_while_the_database_is_down(hangs: bool) -> None:
    """Two processes' worth of auth, over sockets; the database is stopped for real, and comes back."""
    with tempfile.TemporaryDirectory(prefix="modelplane-tests-") as home:
        server = EmbeddedServer(Path(home), durable=False)
        await server.start()
        upgrade(server.url)
        async with AsyncExitStack() as stack:
            database = Database(server.url)
            await database.open()
            stack.push_async_callback(database.close)
            await write(database)
            keys = await stack.enter_async_context(keys_on(database, Path(home) / "revocations.jsonl"))
            rpc = RpcServer(RpcSettings(token="token"), {"keys": descriptor_of(KeysService)})
            await rpc.start()
            stack.push_async_callback(rpc.stop, 0)
            rpc.place("keys", keys)
            await rpc.serving(True)
            both: list[Auth] = []
            for _ in range(2):
                client = await stack.enter_async_context(connect(KeysService, rpc.address, RpcSettings(token="token")))
                both.append(await stack.enter_async_context(serving(Auth(client, PEPPER, AuthSettings()))))
            await listening(keys, database)
            revoked, kept = await make(keys), await make(keys)
            await asyncio.sleep(0.5)
            for auth in both:
                for made in (revoked, kept):
                    await auth.authenticate(asking(made.secret))
            async with outage(server, Path(home), hangs):
                # A second, and what a busy machine adds.
                async with asyncio.timeout(5):
                    await keys.revoke_key(keys_pb2.RevokeKeyRequest(organization_id="org-1", key_id=revoked.key.id))
                    await asyncio.gather(*(until_refused(auth, revoked.secret) for auth in both))
                # It is not of this project.
                await keys.revoke_key(
                    keys_pb2.RevokeKeyRequest(organization_id="org-1", project_id="proj_2", key_id=kept.key.id)
                )
                await asyncio.sleep(0.1)
                for auth in both:
                    await auth.authenticate(asking(kept.secret))
            async with asyncio.timeout(30):
                while not await is_revoked(database, revoked.key.id):
                    await asyncio.sleep(0.05)
            for auth in both:
                await until_refused(auth, revoked.secret)
                async with asyncio.timeout(30):
                    while not await works(auth, kept.secret):
                        await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                while (Path(home) / "revocations.jsonl").exists():
                    await asyncio.sleep(0.05)
            assert not await is_revoked(database, kept.key.id)
            events = "SELECT count(*) FROM audit_events WHERE type = 'api_key.deleted'"
            async with database.connection() as connection:
                assert await (await connection.execute(events)).fetchone() == (1,)
        await server.stop()


async def is_revoked(database: Database, key_id: str) -> bool:
    try:
        async with database.connection() as connection:
            found = await connection.execute("SELECT revoked_at FROM api_keys WHERE id = %s", (key_id,))
            row = await found.fetchone()
    except Unavailable:
        return False
    return row is not None and row[0] is not None


async def works(auth: Auth, key: str) -> bool:
    try:
        await auth.authenticate(asking(key))
    except Unavailable:
        return False
    return True


async def test_a_revocation_is_not_forgotten_by_a_restart(database_url: str, tmp_path: Path) -> None:
    journal = tmp_path / "revocations.jsonl"
    database = Database(database_url)
    await database.open()
    await write(database)
    async with keys_on(database, journal) as keys:
        made = await make(keys)
        await database.close()
        await keys.revoke_key(keys_pb2.RevokeKeyRequest(organization_id="org-1", key_id=made.key.id))
        # Of another organisation, as it turns out: nothing happens to it.
        await keys.revoke_key(keys_pb2.RevokeKeyRequest(organization_id="org-2", key_id=made.key.id))
    assert journal.read_bytes().count(b"\n") == 2
    with journal.open("ab") as file:
        file.write(b'{"organization_id": "torn')
    back = Database(database_url)
    await back.open()
    async with keys_on(back, journal), asyncio.timeout(30):
        while journal.exists():
            await asyncio.sleep(0.01)
    assert await is_revoked(back, made.key.id)
    await back.close()


async def test_a_change_missed_while_disconnected_is_noticed(database_url: str, auth: Auth, keys: Keys) -> None:
    made = await make(keys)
    await auth.authenticate(asking(made.secret))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE api_keys DISABLE TRIGGER tell")
        connection.execute("UPDATE api_keys SET revoked_at = now()")  # nobody is told
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
            "AND datname = current_database()"
        )
    await until_refused(auth, made.secret, within_s=20)


async def test_known_keys_work_through_an_outage(database: Database, auth: Auth, keys: Keys) -> None:
    known, unknown = await make(keys), await make(keys)
    await auth.authenticate(asking(known.secret))
    await database.close()
    assert (await auth.authenticate(asking(known.secret))).principal.project_id == "proj_1"
    with pytest.raises(Unavailable):
        await auth.authenticate(asking(unknown.secret))


class Deaf:
    """A KeysService that resolves, and whose stream of changes falls silent."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.silent = False
        self.resolve, self.touch = keys.resolve, keys.touch

    async def watch(self, request: keys_pb2.WatchRequest, /) -> AsyncIterator[keys_pb2.WatchResponse]:
        async for change in self.keys.watch(request):
            if self.silent:
                await asyncio.Event().wait()
            yield change


async def test_a_stream_that_falls_silent_is_replaced_and_nothing_is_believed_since(keys: Keys) -> None:
    deaf = Deaf(keys)
    async with serving(Auth(deaf, PEPPER, AuthSettings(patience_s=0.3))) as auth:  # type: ignore[arg-type]
        made = await make(keys)
        await auth.authenticate(asking(made.secret))
        deaf.silent = True
        await keys.revoke_key(keys_pb2.RevokeKeyRequest(organization_id="org-1", key_id=made.key.id))
        await asyncio.sleep(0.4)
        await auth.authenticate(asking(made.secret))
        deaf.silent = False
        await until_refused(auth, made.secret, within_s=2)


async def test_guessing_is_bounded(keys: Keys) -> None:
    settings = AuthSettings(unknown_burst=5, unknown_per_s=0.001, cached_unknown_keys=10)
    async with serving(Auth(keys, PEPPER, settings)) as auth:
        known = await make(keys)
        await auth.authenticate(asking(known.secret))
        outcomes = []
        for number in range(8):
            guess = generate(auth_pb2.KEY_KIND_PROJECT, number.to_bytes(RANDOM_BYTES, "big"))
            with pytest.raises((Unauthenticated, Unavailable)) as caught:
                await auth.authenticate(asking(guess))
            outcomes.append(caught.value.reason)
        assert outcomes == ["invalid_api_key"] * 5 + ["service_unavailable"] * 3
        await auth.authenticate(asking(known.secret))
        new = await make(keys)
        with pytest.raises(Unavailable):
            await auth.authenticate(asking(new.secret))
        await auth.authenticate(asking(new.secret, "192.0.2.1"))
        with pytest.raises(Unauthenticated):
            await auth.authenticate(asking("sk-proj-mistyped"))


async def test_last_uses_are_reported_together_and_at_the_end(keys: Keys, database: Database) -> None:
    made = [await make(keys) for _ in range(2)]
    async with serving(Auth(keys, PEPPER, AuthSettings(touch_interval_s=3600), wall=lambda: 1_700_000_000.5)) as auth:
        for key in made:
            for _ in range(3):
                await auth.authenticate(asking(key.secret))
        request = keys_pb2.GetKeyRequest(organization_id="org-1", project_id="proj_1", key_id=made[0].key.id)
        assert (await keys.get_key(request)).key.last_used_at == 0
        await auth.touch()
        assert (await keys.get_key(request)).key.last_used_at in (1_700_000_000, 1_700_000_001)
        await auth.authenticate(asking(made[1].secret))
    async with database.connection() as connection:
        found = await connection.execute("SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL")
        assert await found.fetchone() == (2,)


async def test_secrets_are_neither_stored_nor_logged(
    database_url: str, auth: Auth, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await make(keys)
    await auth.authenticate(asking(made.secret))
    with psycopg.connect(database_url) as connection:
        stored = str(connection.execute("SELECT * FROM api_keys, audit_events").fetchall())
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert made.secret not in stored and made.secret not in told


async def test_keys_count_only_under_their_pepper(keys: Keys) -> None:
    made = await make(keys)
    with pytest.raises(Unauthenticated):
        await Auth(keys, KeySettings(pepper="other"), AuthSettings()).authenticate(asking(made.secret))
