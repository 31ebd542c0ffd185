"""Tells owners that a month's spend has reached a threshold of theirs, once a month in each channel of an alert.

Kept true: an alert is told at least once, by one process at a time; a receiver that fails is asked again ever more
seldom and holds up no other for longer than its time limit.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec
from prometheus_client import Counter

from services import telemetry, webhooks
from services.faults import Fault
from services.notifications.backoff import wait_s
from services.notifications.delivery import JSON, DeliveryError, Poster
from services.notifications.settings import NotificationsSettings
from services.notifications.store import EMAIL, WEBHOOK, Due, NotificationsStore

NANO: Final = 10**9
ALERTS = Counter(
    "modelplane_spend_alerts",
    "Spend alerts, by channel (email, webhook) and outcome: sent, failed (it is tried again).",
    ("channel", "outcome"),
)

log = telemetry.logger(__name__)

_Key = tuple[str, str, str]


class Alerts:
    """Looks for alerts that are due and sends them. `clock` gives seconds that never go back."""

    def __init__(
        self,
        store: NotificationsStore,
        poster: Poster,
        settings: NotificationsSettings,
        secrets: Sequence[bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._poster = poster
        self._settings = settings
        self._secrets = secrets
        self._clock = clock
        self._channels = [WEBHOOK, EMAIL] if settings.email_hook_url else [WEBHOOK]
        # Failures in a row, and when to try again.
        self._waiting: dict[_Key, tuple[int, float]] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.check()
            except Fault as fault:
                log.warning("spend alerts were not looked at", reason=fault.reason)
            except Exception as error:  # the next round may go better
                log.error("spend alerts were not looked at", exc_info=error)
            await asyncio.sleep(self._settings.check_interval_s)

    async def check(self) -> None:
        """Sends all that are due and do not wait after a failure. Fault: database_unavailable."""
        due = await self._store.due(self._channels)
        self._waiting = {key: self._waiting[key] for found in due if (key := _key(found)) in self._waiting}
        slots = asyncio.Semaphore(self._settings.max_concurrent)
        now = self._clock()
        async with asyncio.TaskGroup() as sending:
            for found in due:
                if self._waiting.get(_key(found), (0, now))[1] <= now:
                    sending.create_task(self._send(found, slots))

    async def _send(self, due: Due, slots: asyncio.Semaphore) -> None:
        key = _key(due)
        async with slots:
            try:
                async with self._store.sending(due) as fresh:
                    if fresh is None:
                        return
                    await self._deliver(fresh)
                self._waiting.pop(key, None)
                ALERTS.labels(due.channel, "sent").inc()
            except (DeliveryError, Fault) as error:
                failures = self._waiting.get(key, (0, 0.0))[0] + 1
                self._waiting[key] = failures, self._clock() + wait_s(failures, self._settings.most_wait_s)
                ALERTS.labels(due.channel, "failed").inc()
                log.warning("a spend alert was not sent", alert=due.alert_id, channel=due.channel, why=str(error))

    async def _deliver(self, due: Due) -> None:
        """Raises DeliveryError."""
        now = datetime.now(UTC)
        body = msgspec.json.encode(_email(due) if due.channel == EMAIL else _webhook(due, now))
        message_id = f"msg_{due.alert_id}_{due.month:%Y_%m}_{due.channel}"
        headers = webhooks.headers(self._secrets, message_id, int(now.timestamp()), body)
        if due.channel == WEBHOOK:
            await self._poster.post_outside(due.webhook_url, body, headers)
        else:
            assert self._settings.email_hook_url is not None
            await self._poster.post_own(self._settings.email_hook_url, body, {"Content-Type": JSON, **headers})


def _key(due: Due) -> _Key:
    return due.alert_id, due.channel, due.month.isoformat()


def _webhook(due: Due, now: datetime) -> dict[str, object]:
    project = {"id": due.project_id, "name": due.project_name} if due.project_id else None
    return {
        "type": "spend_alert.reached",
        "timestamp": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "data": {
            "spend_alert_id": due.alert_id,
            "organization": {"id": due.organization_id, "name": due.organization_name},
            "project": project,
            "month": f"{due.month:%Y-%m}",
            "threshold_amount": due.threshold_cents,
            "spent_dollars": f"{Decimal(due.nanodollars) / NANO:f}",
            "currency": "USD",
        },
    }


def _email(due: Due) -> dict[str, object]:
    who = due.organization_name
    if due.project_id:
        who = f"the project {due.project_name} of {who}"
    threshold, spent = Decimal(due.threshold_cents) / 100, Decimal(due.nanodollars) / NANO
    month = f"{due.month:%B %Y}"
    return {
        "to": list(due.email_recipients),
        "subject": f"{due.subject_prefix} Spend in {month} has reached ${threshold:,.2f}".strip(),
        "text": f"In {month}, {who} has spent ${spent:,.2f} until now. You asked to hear of it at ${threshold:,.2f}.\n",
    }
