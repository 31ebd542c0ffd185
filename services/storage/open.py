"""The one way into the database: start or find the server, bring its schema up to date, connect."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from services.storage.database import Database
from services.storage.embedded import EmbeddedServer
from services.storage.migrate import upgrade


@asynccontextmanager
async def open_database(url: str | None, home: Path) -> AsyncIterator[Database]:
    """A migrated database: the one at `url`, or this machine's own under `home` when there is no url.

    Raises StartError when the server cannot be started or the schema is newer than this program.
    """
    async with AsyncExitStack() as stack:
        if url is None:
            server = EmbeddedServer(home)
            stack.push_async_callback(server.stop)
            await server.start()
            url = server.url
        await asyncio.to_thread(upgrade, url)
        database = Database(url)
        stack.push_async_callback(database.close)
        await database.open()
        yield database
