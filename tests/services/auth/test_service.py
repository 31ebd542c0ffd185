"""What the contract test cannot see from outside: what is stored, what is logged, and how processes agree."""

import asyncio
import logging
from collections.abc import AsyncIterator

import psycopg
import pytest

from modelplane.auth.v1 import auth_pb2
from services.auth.service import Auth, serving
from services.auth.settings import Settings
from services.auth.store import Store
from services.faults import Unauthenticated, Unavailable
from services.storage import Database


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    async with serving(Store(database), Settings()) as auth:
        yield auth


@pytest.fixture
async def first(auth: Auth) -> auth_pb2.BootstrapResponse:
    return await auth.bootstrap(auth_pb2.BootstrapRequest())


def asking(key: str) -> auth_pb2.AuthenticateRequest:
    return auth_pb2.AuthenticateRequest(key=key)


async def until_refused(auth: Auth, key: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await auth.authenticate(asking(key))
            except Unauthenticated:
                return
            await asyncio.sleep(0.005)


async def test_a_revocation_reaches_other_processes(
    database_url: str, auth: Auth, first: auth_pb2.BootstrapResponse
) -> None:
    elsewhere = Database(database_url)
    await elsewhere.open()
    async with serving(Store(elsewhere), Settings()) as other:
        principal = (await other.authenticate(asking(first.api_key))).principal
        await auth.revoke_key(auth_pb2.RevokeKeyRequest(organization_id=first.organization_id, key_id=principal.key_id))
        await until_refused(other, first.api_key)
    await elsewhere.close()


async def test_a_revocation_missed_while_disconnected_is_noticed(
    database_url: str, auth: Auth, first: auth_pb2.BootstrapResponse
) -> None:
    await auth.authenticate(asking(first.api_key))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE api_keys SET revoked_at = now()")  # nobody is told
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
            "AND datname = current_database()"
        )
    await until_refused(auth, first.api_key)


async def test_known_keys_work_through_an_outage(database: Database, auth: Auth) -> None:
    first = await auth.bootstrap(auth_pb2.BootstrapRequest())
    await auth.authenticate(asking(first.api_key))
    await database.close()
    assert (await auth.authenticate(asking(first.api_key))).principal.project_id == first.project_id
    with pytest.raises(Unavailable):
        await auth.authenticate(asking(first.admin_key))


async def test_two_processes_that_bootstrap_together_make_one_organization(database: Database) -> None:
    services = [Auth(Store(database), Settings()) for _ in range(5)]
    answers = await asyncio.gather(*(service.bootstrap(auth_pb2.BootstrapRequest()) for service in services))
    assert sorted(answer.created for answer in answers) == [False, False, False, False, True]
    assert all(not answer.api_key and not answer.admin_key for answer in answers if not answer.created)


async def test_secrets_are_neither_stored_nor_logged(
    database_url: str, auth: Auth, first: auth_pb2.BootstrapResponse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await auth.create_key(
        auth_pb2.CreateKeyRequest(organization_id=first.organization_id, project_id=first.project_id, name="n")
    )
    for key in (first.api_key, first.admin_key, made.secret):
        await auth.authenticate(asking(key))
    with psycopg.connect(database_url) as connection:
        stored = str(connection.execute("SELECT * FROM api_keys").fetchall())
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for key in (first.api_key, first.admin_key, made.secret):
        assert key not in stored
        assert key not in told


async def test_keys_count_only_under_their_pepper(database: Database, first: auth_pb2.BootstrapResponse) -> None:
    peppered = Auth(Store(database), Settings(pepper="other"))
    with pytest.raises(Unauthenticated):
        await peppered.authenticate(asking(first.api_key))
