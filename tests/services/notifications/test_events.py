"""Usage as CloudEvents to a real receiver: all of it, in order, and again rather than never."""

import asyncio
from typing import Any

import psycopg
import pytest

from services.notifications.delivery import DeliveryError, Poster
from services.notifications.events import Events
from services.notifications.settings import NotificationsSettings
from services.notifications.store import NotificationsStore
from services.storage import Database
from tests.fakes.receiver import Receiver
from tests.services.ledger import written
from tests.services.ledger.written import usage


@pytest.fixture
def events(store: NotificationsStore, poster: Poster, receiver: Receiver) -> Events:
    settings = NotificationsSettings(events_batch=10, events_source="here", events_authorization="Bearer token")
    return Events(store, poster, settings, receiver.url)


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for request in receiver.received for event in request.json]


async def test_everything_in_order(events: Events, database: Database, receiver: Receiver) -> None:
    await written.add_prices(database)
    numbers = [7, 3, *range(20, 41), 1]
    for number in numbers:
        await written.add_usage(database, [usage(number)])
    assert [await events.send() for _ in range(4)] == [10, 10, 4, 0]
    assert ids(receiver) == [f"req_{number:04}" for number in numbers]
    await written.add_usage(database, [usage(2)])
    assert await events.send() == 1


async def test_an_event(events: Events, database: Database, receiver: Receiver) -> None:
    await written.add_prices(database)
    found = usage(7, service_tier="flex", batch=False)
    await written.add_usage(database, [found])
    await written.add_refund(database, found)
    await events.send()
    [request] = receiver.received
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert request.headers["authorization"] == "Bearer token"
    [event] = request.json
    data: dict[str, Any] = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "type": "modelplane.usage",
        "source": "here",
        "id": "req_0007",
        "subject": "org-1",
        "time": "2026-11-01T00:42:01.500Z",
        "datacontenttype": "application/json",
    }
    assert (data["input_tokens"], data["output_tokens"], data["model"], data["outcome"]) == (
        1007,
        49,
        "chat",
        "completed",
    )
    assert data["tools"] == {"web_search": 2} and data["project_id"] == "proj_3"
    assert sum(line["nanodollars"] for line in data["lines"]) == data["nanodollars"] > 0
    assert {line["name"] for line in data["lines"]} == {
        "input",
        "cached_input",
        "output",
        "discount",
        "tool:web_search",
    }


async def test_what_was_not_taken_is_sent_again(events: Events, database: Database, receiver: Receiver) -> None:
    await written.add_prices(database)
    await written.add_usage(database, [usage(1), usage(2)])
    receiver.statuses = [503, 400]
    for _ in range(2):
        with pytest.raises(DeliveryError):
            await events.send()
    assert await events.send() == 2
    assert ids(receiver) == ["req_0001", "req_0002"] * 3
    assert await events.send() == 0


async def test_killed_between_delivery_and_cursor(events: Events, database: Database, receiver: Receiver) -> None:
    """The database goes away when the receiver has taken the batch: it is sent again, with the same ids."""
    await written.add_prices(database)
    await written.add_usage(database, [usage(1), usage(2)])
    receiver.may_answer.clear()
    sending = asyncio.create_task(events.send())
    await receiver.wait_for(1)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    receiver.may_answer.set()
    with pytest.raises(Exception, match="database cannot be reached"):
        await sending
    assert await events.send() == 2
    assert ids(receiver) == ["req_0001", "req_0002"] * 2


async def test_one_process_sends(events: Events, database: Database, receiver: Receiver) -> None:
    await written.add_prices(database)
    await written.add_usage(database, [usage(1)])
    receiver.may_answer.clear()
    sending = asyncio.create_task(events.send())
    await receiver.wait_for(1)
    assert await events.send() == 0
    receiver.may_answer.set()
    assert await sending == 1
    assert len(receiver.received) == 1


async def test_what_is_committed_late_is_not_passed_over(
    events: Events, database: Database, receiver: Receiver
) -> None:
    """A transaction that began before others and ends after them."""
    await written.add_prices(database)
    with psycopg.connect(database.url) as late:
        late.execute("INSERT INTO cursors VALUES ('a writer', '1', 1)")
        late.execute(
            "INSERT INTO usage_records (request_id, organization_id, project_id, key_id, user_id, model, service_tier, "
            "operation, outcome, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, "
            "finished_at_ms) VALUES ('req_late', 'org-1', 'p', 'k', 'u', 'chat', 'default', 'chat.completions', 1, "
            "1, 0, 1, 0, 1, 1)"
        )
        await written.add_usage(database, [usage(1)])
        assert await events.send() == 0
        late.commit()
    assert await events.send() == 2
    assert ids(receiver) == ["req_late", "req_0001"]


async def test_it_goes_on_by_itself(
    store: NotificationsStore, poster: Poster, database: Database, receiver: Receiver
) -> None:
    """Through a receiver's outage."""
    await written.add_prices(database)
    settings = NotificationsSettings(events_batch=2, events_interval_s=0.01, most_wait_s=0.05)
    receiver.statuses = [500, 500]
    running = asyncio.create_task(Events(store, poster, settings, receiver.url).run())
    try:
        await written.add_usage(database, [usage(number) for number in range(1, 6)])
        async with asyncio.timeout(30):
            while not receiver.received or ids(receiver)[-1] != "req_0005":
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert list(dict.fromkeys(ids(receiver))) == [f"req_{number:04}" for number in range(1, 6)]
