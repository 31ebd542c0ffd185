"""PostgreSQL by a url with TLS: libpq checks certificate and name, for migrations, queries and notifications."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from services.settings import PlatformSettings
from services.storage import StartError, open_database
from services.storage.migrate import upgrade
from tests.cluster.certificates import Authority
from tests.fakes.relays import Streams, relay, server_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority", "databases")


@pytest.fixture
async def secured(database_url: str, authority: Authority) -> AsyncIterator[str]:
    """The same database behind TLS, for the name `localhost`; without what says how it is checked."""
    there = conninfo_to_dict(database_url)
    issued = authority.issue("server", "PostgreSQL", names=("localhost",))

    async def dial() -> Streams:
        return await asyncio.open_unix_connection(f"{there['host']}/.s.PGSQL.{there.get('port', 5432)}")

    context = server_context(str(issued.certificate), str(issued.key))
    async with relay(dial, context, postgres=True) as port:
        yield f"postgresql://{there['user']}@localhost:{port}/{there['dbname']}?hostaddr=127.0.0.1"


def checked(url: str, authority: Authority) -> str:
    return f"{url}&sslmode=verify-full&sslrootcert={quote(str(authority.folder / 'ca.crt'))}"


async def test_everything_works_over_tls(secured: str, authority: Authority) -> None:
    url = checked(secured, authority)
    assert (await asyncio.to_thread(upgrade, url)).after
    for settings in (
        PlatformSettings(database_url=url),
        PlatformSettings(database_url=url, database_migrate=False, database_wait_s=5),
    ):
        async with open_database(settings) as database:
            await database.ping()
            listening = database.listen("news")
            assert await asyncio.wait_for(anext(listening), 30) is None
            async with database.connection() as connection:
                await connection.execute("NOTIFY news, 'hello'")
            assert await asyncio.wait_for(anext(listening), 30) == "hello"
            await listening.aclose()


async def test_a_server_of_another_authority_is_refused(secured: str, tmp_path: Path) -> None:
    url = checked(secured, Authority(tmp_path / "other", "others"))
    with pytest.raises(StartError, match="certificate verify failed"):
        await asyncio.to_thread(upgrade, url)


async def test_a_server_of_another_name_is_refused(secured: str, authority: Authority) -> None:
    url = checked(secured.replace("@localhost", "@database.internal"), authority)
    with pytest.raises(StartError, match="does not match host name"):
        await asyncio.to_thread(upgrade, url)
