"""Connections to PostgreSQL: a bounded pool, and a listener that comes back by itself.

Keeps true: an outage of the database reaches callers as the fault `database_unavailable` and as nothing
else, and a pooled connection that died while idle is replaced before anybody uses it. Nothing waits for a lock or an
answer without end, so that what is locked does not take the pool's connections from those who want something else.
"""

import asyncio
import select
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, LiteralString

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from services import telemetry
from services.faults import Unavailable

log = telemetry.logger(__name__)

# What the url leaves open, in seconds: a peer that vanished without closing is noticed after 25.
DEFAULTS: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "connect_timeout": 10}
HEARTBEAT_S = 15.0
ANSWER_S = 15.0
# A server that takes no changes was the primary a moment ago: the one that is now will be found by connecting again.
OUTAGES: Final = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)
TOO_LONG: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 1.0


class Database:
    """One database, shared by the services of a process."""

    def __init__(
        self,
        url: str,
        *,
        max_connections: int = 10,
        wait_s: float = 5.0,
        lock_timeout_s: float = 5.0,
        statement_timeout_s: float = 30.0,
    ) -> None:
        """`wait_s` bounds how long a caller waits for a free connection, the others how long a statement waits for each
        lock and how long it takes in all."""
        self.url = url
        self._lock_timeout_s = lock_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._conninfo = make_conninfo("", **(DEFAULTS | conninfo_to_dict(url)))
        self._pool: AsyncConnectionPool[AsyncConnection[TupleRow]] = AsyncConnectionPool(
            self._conninfo,
            min_size=1,
            max_size=max_connections,
            timeout=wait_s,
            configure=self._bound,
            check=replace_if_dead,
            open=False,
        )

    async def open(self) -> None:
        """Waits for a first connection. Fault: database_unavailable."""
        try:
            await self._pool.open(wait=True)
        except psycopg.OperationalError as error:
            await self._pool.close()
            raise unavailable() from error

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, *, statement_timeout_s: float | None = None) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """One transaction: committed at the end of the block, rolled back when it raises. `statement_timeout_s` is for
        statements that are known to take long, 0 for no bound.

        Fault: database_unavailable.
        """
        try:
            async with self._pool.connection() as connection:
                if statement_timeout_s is not None:
                    await connection.execute(_limit("SET LOCAL statement_timeout = {}", statement_timeout_s))
                yield connection
        except TOO_LONG as error:
            log.warning("database takes too long", error=str(error))
            raise too_long() from error
        except OUTAGES as error:
            log.warning("database unavailable", error=str(error))
            raise unavailable() from error

    async def _bound(self, connection: AsyncConnection[TupleRow]) -> None:
        await connection.execute(_limit("SET lock_timeout = {}", self._lock_timeout_s))
        await connection.execute(_limit("SET statement_timeout = {}", self._statement_timeout_s))
        await connection.commit()

    async def ping(self) -> None:
        """Fault: database_unavailable."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """The payloads sent to `channel`, for ever, across lost connections.

        Yields None whenever it has begun to listen, the first time too: whatever was sent before is
        lost, so anything kept in step by these notifications has to be read afresh. Close it when done.
        """
        retry_s = FIRST_RETRY_S
        while True:
            try:
                async with await AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    retry_s = FIRST_RETRY_S
                    yield None
                    async for payload in payloads(connection):
                        yield payload
            except (*OUTAGES, TimeoutError) as error:
                log.warning("listener lost its connection", channel=channel, error=str(error))
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)


async def payloads(connection: AsyncConnection[TupleRow]) -> AsyncIterator[str]:
    """Notifications, until the connection fails; a silent connection is asked whether it lives."""
    while True:
        async for notification in connection.notifies(timeout=HEARTBEAT_S):
            yield notification.payload
        async with asyncio.timeout(ANSWER_S):
            await connection.execute("SELECT 1")


async def replace_if_dead(connection: AsyncConnection[TupleRow]) -> None:
    # An idle connection has nothing to read unless the server closed it, so a poll (microseconds) spares
    # the round trip in all other cases. Raising makes the pool take another connection.
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


def _limit(statement: LiteralString, timeout_s: float) -> sql.Composed:
    """In milliseconds. Not a parameter: what is set before the isolation level of a transaction must be no query."""
    return sql.SQL(statement).format(sql.Literal(int(timeout_s * 1000)))


def too_long() -> Unavailable:
    return Unavailable("database_unavailable", "The database takes too long. Try again shortly.")


def unavailable() -> Unavailable:
    return Unavailable("database_unavailable", "The database cannot be reached. Try again shortly.")
