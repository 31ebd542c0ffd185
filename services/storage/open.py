"""The one way into the database: start or find the server, bring its schema up to date, connect."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from services import telemetry
from services.settings import PlatformSettings
from services.storage.database import Database
from services.storage.embedded import EmbeddedServer, running_url
from services.storage.errors import StartError
from services.storage.migrate import OutOfDate, check, upgrade

LOOK_EVERY_S: Final = 1.0

log = telemetry.logger(__name__)


@asynccontextmanager
async def open_database(settings: PlatformSettings) -> AsyncIterator[Database]:
    """A database with a schema that this program can use: the one at the settings' url, or this machine's own under
    the home when there is no url. Waits for the schema when somebody else migrates it.

    Raises StartError when the server cannot be started, or the schema is too new, or does not come.
    """
    async with AsyncExitStack() as stack:
        url = settings.database_url
        if url is None:
            server = EmbeddedServer(settings.home)
            stack.push_async_callback(server.stop)
            await server.start()
            url = server.url
        if settings.database_migrate or settings.database_url is None:
            await asyncio.to_thread(upgrade, url)
        else:
            await migrated(url, settings.database_wait_s)
        database = Database(url)
        stack.push_async_callback(database.close)
        await database.open()
        yield database


@asynccontextmanager
async def reached(settings: PlatformSettings) -> AsyncIterator[str]:
    """The url of the settings' database, whatever is in it. This machine's own is the one that a running platform has
    under the home, else it runs for as long as the block. Raises StartError."""
    async with AsyncExitStack() as stack:
        url = settings.database_url or running_url(settings.home)
        if url is None:
            server = EmbeddedServer(settings.home)
            stack.push_async_callback(server.stop)
            await server.start()
            url = server.url
        yield url


async def migrated(url: str, timeout_s: float) -> None:
    """Returns when somebody has migrated the database. Raises StartError when that takes too long, or its schema is
    one that this program must not use."""
    give_up_at_s = time.monotonic() + timeout_s
    waiting = False
    while True:
        try:
            await asyncio.to_thread(check, url)
            return
        except OutOfDate as error:
            if time.monotonic() >= give_up_at_s:
                raise StartError(
                    f"{error} Run `modelplane migrate`, or set MODELPLANE_DATABASE_MIGRATE=true."
                ) from None
            if not waiting:
                log.warning("waiting for the database's schema", reason=str(error), at_most_s=timeout_s)
                waiting = True
        await asyncio.sleep(LOOK_EVERY_S)
