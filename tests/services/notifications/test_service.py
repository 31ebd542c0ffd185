"""The service as `compose` builds it: settings that cannot be, and both of its works from start to stop."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from pathlib import Path

import pytest

from services.compose import Platform
from services.notifications.delivery import Poster
from services.notifications.service import Notifications, private_hosts
from services.notifications.settings import NotificationsSettings
from services.notifications.store import NotificationsStore
from services.settings import Environment, SettingsError
from services.storage import Database
from tests.fakes.receiver import Receiver
from tests.services.ledger import written
from tests.services.ledger.written import usage


async def test_as_it_is_built(store: NotificationsStore, database: Database, receiver: Receiver) -> None:
    await written.add_prices(database)
    await written.add_usage(database, [usage(1)])
    async with database.connection() as connection:
        await connection.execute("INSERT INTO spend_alerts VALUES ('a', 'org-1', '', 1, '{a@b.example}', '', '')")
        await connection.execute(
            "INSERT INTO spend VALUES ('org-1', '', date_trunc('month', now() AT TIME ZONE 'UTC'), 10000000) "
            "ON CONFLICT (organization_id, project_id, month) DO UPDATE SET nanodollars = excluded.nanodollars"
        )
    variables = {
        "MODELPLANE_DATABASE_URL": database.url,
        "MODELPLANE_NOTIFICATIONS_EVENTS_URL": f"http://127.0.0.1:{receiver.port}/events",
        "MODELPLANE_NOTIFICATIONS_EMAIL_HOOK_URL": f"http://127.0.0.1:{receiver.port}/email",
    }
    async with Platform(["notifications"], Environment(variables)):
        await receiver.wait_for(2)
    assert {request.path for request in receiver.received} == {"/events", "/email"}
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("notifications")]


async def test_killed_when_the_receiver_has_it(
    store: NotificationsStore, database: Database, receiver: Receiver, tmp_path: Path
) -> None:
    """A real process, killed between a delivery and its writing down: the next one delivers again, with the same id."""
    await written.add_prices(database)
    await written.add_usage(database, [usage(1), usage(2)])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MODELPLANE_")},
        "MODELPLANE_HOME": str(tmp_path),
        "MODELPLANE_DATABASE_URL": database.url,
        "MODELPLANE_NOTIFICATIONS_EVENTS_URL": receiver.url,
    }
    serve = (sys.executable, "-m", "services", "serve", "notifications")
    receiver.may_answer.clear()
    for run in (1, 2):
        process = await asyncio.create_subprocess_exec(*serve, env=environment, stdout=DEVNULL, stderr=DEVNULL)
        try:
            await receiver.wait_for(run)
            if run == 2:
                receiver.may_answer.set()
                await _until_sent(database)
        finally:
            process.kill()
            await process.wait()
    first, second = ([event["id"] for event in request.json] for request in receiver.received)
    assert first == second == ["req_0001", "req_0002"]


async def _until_sent(database: Database) -> None:
    async with asyncio.timeout(30):
        while True:
            async with database.connection() as connection:
                if await (await connection.execute("SELECT FROM cursors WHERE seq = 2")).fetchone() is not None:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "settings",
    [
        NotificationsSettings(webhook_secrets="whsec_!"),
        NotificationsSettings(events_batch=0),
        NotificationsSettings(max_concurrent=0),
    ],
)
def test_settings_that_cannot_be(store: NotificationsStore, poster: Poster, settings: NotificationsSettings) -> None:
    with pytest.raises(SettingsError, match="MODELPLANE_NOTIFICATIONS_"):
        Notifications(store, poster, settings)


def test_hosts_that_cannot_be() -> None:
    assert private_hosts(NotificationsSettings(allow_private_hosts="a.example, 10.0.0.1")) == {"a.example", "10.0.0.1"}
    with pytest.raises(SettingsError, match="ALLOW_PRIVATE_HOSTS"):
        private_hosts(NotificationsSettings(allow_private_hosts="a b"))
