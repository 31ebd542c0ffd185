"""Sends usage to another billing system as CloudEvents 1.0, in the order in which it came into the ledger.

Kept true: every record is sent at least once, with the request's id as the event's; the position is moved on after the
receiver has taken a batch, and no batch is passed over, however long the receiver refuses it; one process sends.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from prometheus_client import Counter

from modelplane.usage.v1.usage_pb2 import Outcome
from services import telemetry
from services.faults import Fault
from services.notifications.backoff import wait_s
from services.notifications.delivery import DeliveryError, Poster
from services.notifications.settings import NotificationsSettings
from services.notifications.store import Batch, Line, NotificationsStore

BATCH_TYPE: Final = "application/cloudevents-batch+json"
TYPE: Final = "modelplane.usage"

EVENTS = Counter("modelplane_usage_events", "Usage records that the receiver of CloudEvents has taken.")
FAILURES = Counter("modelplane_usage_event_failures", "Batches of CloudEvents that were refused and are sent again.")

log = telemetry.logger(__name__)


class Events:
    """Sends what is new, for ever."""

    def __init__(self, store: NotificationsStore, poster: Poster, settings: NotificationsSettings, url: str) -> None:
        self._store = store
        self._poster = poster
        self._settings = settings
        self._url = url
        self._headers = {"Content-Type": BATCH_TYPE}
        if settings.events_authorization:
            self._headers["Authorization"] = settings.events_authorization

    async def run(self) -> None:
        """For ever."""
        failures = 0
        while True:
            try:
                sent = await self.send()
                failures = 0
                if sent < self._settings.events_batch:
                    await asyncio.sleep(self._settings.events_interval_s)
                continue
            except (DeliveryError, Fault) as error:
                log.warning("usage events were not sent", failures=failures, why=str(error))
            except Exception as error:  # the next attempt may go better
                log.error("usage events were not sent", exc_info=error)
            FAILURES.inc()
            failures += 1
            await asyncio.sleep(wait_s(failures, self._settings.most_wait_s))

    async def send(self) -> int:
        """Sends the next batch, if there is one and nobody else is at it; returns how many records it had.

        Raises DeliveryError. Fault: database_unavailable.
        """
        async with self._store.sending_events(self._settings.events_batch) as batch:
            if batch is None or not batch.records:
                return 0
            body = msgspec.json.encode(cloud_events(batch, self._settings.events_source))
            await self._poster.post_own(self._url, body, self._headers)
        EVENTS.inc(len(batch.records))
        return len(batch.records)


def cloud_events(batch: Batch, source: str) -> list[dict[str, Any]]:
    """In the batched JSON format; docs/exports.md shows one."""
    return [
        {
            "specversion": "1.0",
            "type": TYPE,
            "source": source,
            "id": record["request_id"],
            "subject": record["organization_id"],
            "time": _moment(record["finished_at_ms"]),
            "datacontenttype": "application/json",
            "data": _data(record, batch.lines.get(record["request_id"], ())),
        }
        for record in batch.records
    ]


def _data(record: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    return {
        **record,
        "outcome": Outcome.Name(record["outcome"]).removeprefix("OUTCOME_").lower(),
        "tools": record["tools"] or {},
        "lines": [line._asdict() for line in lines],
    }


def _moment(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
