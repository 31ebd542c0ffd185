"""Runs beside the other services and answers nobody: what is to be told stands in the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.compose import Context
from services.internet.locations import LocationError, hosts_of
from services.notifications.alerts import Alerts
from services.notifications.delivery import Poster
from services.notifications.events import Events
from services.notifications.settings import NotificationsSettings
from services.notifications.store import NotificationsStore
from services.settings import PREFIX, SettingsError
from services.storage import Database
from services.webhooks import SecretError, secrets_of


class Notifications:
    """What runs; it has no contract."""

    def __init__(self, store: NotificationsStore, poster: Poster, settings: NotificationsSettings) -> None:
        """Raises SettingsError."""
        prefix = f"{PREFIX}{NotificationsSettings.group.upper()}"
        try:
            secrets = secrets_of(settings.webhook_secrets)
        except SecretError as error:
            raise SettingsError(f"{prefix}_WEBHOOK_SECRETS does not fit: {error}") from error
        if settings.events_batch < 1 or settings.max_concurrent < 1:
            raise SettingsError(f"{prefix}_EVENTS_BATCH and {prefix}_MAX_CONCURRENT must be 1 or more")
        self._runs = [Alerts(store, poster, settings, secrets).run]
        if settings.events_url:
            self._runs.append(Events(store, poster, settings, settings.events_url).run)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both, until the block ends."""
        tasks = [asyncio.create_task(run(), name=f"notifications {index}") for index, run in enumerate(self._runs)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def private_hosts(settings: NotificationsSettings) -> frozenset[str]:
    """Raises SettingsError."""
    try:
        return hosts_of(settings.allow_private_hosts)
    except LocationError as error:
        raise SettingsError(
            f"{PREFIX}{NotificationsSettings.group.upper()}_ALLOW_PRIVATE_HOSTS does not fit: {error}"
        ) from error


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Notifications]:
    settings = context.settings(NotificationsSettings)
    poster = Poster(settings.timeout_s, private_hosts(settings))
    # Connections of its own: a receiver that is slow holds one for as long, and must not take it from requests.
    database = Database(context.database().url, max_connections=settings.max_concurrent + 2)
    try:
        await database.open()
        notifications = Notifications(NotificationsStore(database), poster, settings)
        async with notifications.running():
            yield notifications
    finally:
        await database.close()
        await poster.close()
