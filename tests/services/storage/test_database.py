"""Outages are faults, dead connections are replaced, and a listener comes back and says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from services.faults import Unavailable
from services.storage import Database
from services.storage import database as module


async def disconnect_all(database: Database) -> None:
    """What a restart of the server does to its clients."""
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Database]:
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def notify(database: Database, payload: str) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT pg_notify('things', %s)", (payload,))


async def test_a_block_is_one_transaction(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE kept (n int)")
    with pytest.raises(ZeroDivisionError):
        async with database.connection() as connection:
            await connection.execute("INSERT INTO kept VALUES (1)")
            raise ZeroDivisionError
    async with database.connection() as connection:
        assert await (await connection.execute("SELECT * FROM kept")).fetchall() == []


async def test_idle_connections_that_died_are_replaced(database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(database.ping())
    await disconnect_all(database)
    for _ in range(8):
        await database.ping()


async def test_a_lost_connection_is_a_fault(database: Database) -> None:
    with pytest.raises(Unavailable) as caught:
        async with database.connection() as connection:
            await disconnect_all(database)
            await connection.execute("SELECT 1")
    assert caught.value.reason == "database_unavailable"


async def test_waiting_for_a_connection_is_bounded(database_url: str) -> None:
    database = Database(database_url, max_connections=1, wait_s=0.05)
    await database.open()
    async with database.connection():
        with pytest.raises(Unavailable):
            await database.ping()
    await database.ping()
    await database.close()


async def test_nothing_waits_for_a_lock_without_end(database_url: str) -> None:
    async with (
        await psycopg.AsyncConnection.connect(database_url) as other,
        opened(Database(database_url, max_connections=1, lock_timeout_s=0.05)) as database,
    ):
        await other.execute("LOCK TABLE organizations")
        with pytest.raises(Unavailable, match="too long") as caught:
            async with database.connection() as connection:
                await connection.execute("SELECT * FROM organizations")
        assert caught.value.reason == "database_unavailable"
        await database.ping()


async def test_only_statements_that_are_known_to_take_long_may(database_url: str) -> None:
    async with opened(Database(database_url, max_connections=1, statement_timeout_s=0.05)) as database:
        for timeout_s in (None, 0.07):
            with pytest.raises(Unavailable, match="too long"):
                async with database.connection(statement_timeout_s=timeout_s) as connection:
                    await connection.execute("SELECT pg_sleep(9)")
            for enough_s in (0, 9):
                async with database.connection(statement_timeout_s=enough_s) as connection:
                    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    await connection.execute("SELECT pg_sleep(0.1)")


async def test_listening_across_a_lost_connection(database: Database) -> None:
    heard = database.listen("things")
    assert await anext(heard) is None
    await notify(database, "one")
    assert await anext(heard) == "one"
    waiting = asyncio.ensure_future(anext(heard))
    await disconnect_all(database)
    assert await waiting is None
    await notify(database, "two")
    assert await anext(heard) == "two"
    await heard.aclose()


async def test_nothing_is_missed_around_heartbeats(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.005)
    heard = database.listen("things")
    assert await anext(heard) is None
    sent = [str(number) for number in range(100)]

    async def send() -> None:
        for payload in sent:
            await notify(database, payload)

    sending = asyncio.ensure_future(send())
    assert [await anext(heard) for _ in sent] == sent
    await sending
    await heard.aclose()
