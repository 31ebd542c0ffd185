"""An organisation with a project, and a receiver that is reached over TLS by a public name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.notifications.delivery import Poster
from services.notifications.store import NotificationsStore
from services.storage import Database
from tests.fakes.internet import Authority, Internet, Names
from tests.fakes.receiver import Receiver

PUBLIC = "93.184.215.14"
HOOK = "https://hooks.example/alerts?token=1"
TIMEOUT_S = 2.0


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """In the clear, as the operator's own."""
    async with Receiver().running() as receiver:
        yield receiver


@pytest.fixture
async def outside(authority: Authority, tmp_path: Path) -> AsyncIterator[Receiver]:
    """On the internet, as `hooks.example`."""
    async with Receiver().running(authority.server(tmp_path, ["hooks.example"])) as receiver:
        yield receiver


@pytest.fixture
async def poster(authority: Authority, outside: Receiver) -> AsyncIterator[Poster]:
    """Knows `hooks.example`; `inside.example` is where only the platform may go, `turning.example` turns out so."""
    names = Names(
        {
            "hooks.example": [[PUBLIC]],
            "inside.example": [["127.0.0.1"]],
            "turning.example": [[PUBLIC], ["127.0.0.1"]],
            "own.example": [["127.0.0.1"]],
        }
    )
    network = Internet({PUBLIC: outside, "127.0.0.1": outside})
    poster = Poster(TIMEOUT_S, frozenset(["own.example"]), resolve=names.resolve, tls=authority.client, network=network)
    try:
        yield poster
    finally:
        await poster.close()


@pytest.fixture
async def store(database: Database) -> NotificationsStore:
    async with database.connection() as connection:
        await connection.execute("INSERT INTO organizations (id, name) VALUES ('org-1', 'Acme')")
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name) VALUES ('proj_1', 'org-1', 'Research')"
        )
    return NotificationsStore(database)
