"""Spend alerts: each once a month and channel, to real receivers that refuse, hang and die."""

import asyncio
import base64
import hashlib
import hmac

import pytest

from services.notifications.alerts import Alerts
from services.notifications.delivery import Poster
from services.notifications.settings import NotificationsSettings
from services.notifications.store import NotificationsStore
from services.storage import Database
from services.webhooks import secrets_of
from tests.fakes.receiver import Receiver
from tests.services.notifications.conftest import HOOK

SECRETS = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, whsec_c2Vjb25kIHNlY3JldA=="
SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
CENT = 10_000_000


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def alerts(store: NotificationsStore, poster: Poster, receiver: Receiver, clock: Clock) -> Alerts:
    settings = NotificationsSettings(email_hook_url=receiver.url)
    return Alerts(store, poster, settings, secrets_of(SECRETS), clock=clock)


async def add_alert(
    database: Database, alert_id: str, cents: int, *, url: str = "", emails: tuple[str, ...] = (), project: str = ""
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO spend_alerts VALUES (%s, 'org-1', %s, %s, %s, '[Acme]', %s)",
            (alert_id, project, cents, list(emails), url),
        )


async def spend(database: Database, nanodollars: int, project: str = "", month: str = "now()") -> None:
    async with database.connection() as connection:
        await connection.execute(
            f"INSERT INTO spend VALUES ('org-1', %s, date_trunc('month', {month} AT TIME ZONE 'UTC'), %s) "
            "ON CONFLICT (organization_id, project_id, month) "
            "DO UPDATE SET nanodollars = excluded.nanodollars".encode(),
            (project, nanodollars),
        )


async def sent(database: Database) -> list[tuple[str, str]]:
    async with database.connection() as connection:
        rows = await connection.execute("SELECT alert_id, channel FROM spend_alerts_sent ORDER BY 1, 2")
        return [(row[0], row[1]) for row in await rows.fetchall()]


async def test_once_and_in_every_channel(
    alerts: Alerts, database: Database, outside: Receiver, receiver: Receiver
) -> None:
    await add_alert(database, "alert_1", 1000, url=HOOK, emails=("a@example.com", "b@example.com"))
    await spend(database, 1000 * CENT - 1)
    await alerts.check()
    assert not outside.received and not receiver.received
    await spend(database, 1234 * CENT)
    for _ in range(3):
        await alerts.check()
    [hook], [mail] = outside.received, receiver.received
    assert hook.path == "/alerts?token=1" and hook.headers["host"] == "hooks.example"
    assert hook.json["type"] == "spend_alert.reached" and hook.json["timestamp"].endswith("Z")
    data = hook.json["data"]
    assert (data["threshold_amount"], data["spent_dollars"], data["project"]) == (1000, "12.34", None)
    assert data["organization"] == {"id": "org-1", "name": "Acme"}
    assert mail.json["to"] == ["a@example.com", "b@example.com"]
    assert mail.json["subject"].startswith("[Acme] Spend in ") and mail.json["subject"].endswith("reached $10.00")
    assert "Acme has spent $12.34" in mail.json["text"]
    assert await sent(database) == [("alert_1", "email"), ("alert_1", "webhook")]


async def test_a_webhook_is_signed(alerts: Alerts, database: Database, outside: Receiver) -> None:
    await add_alert(database, "alert_1", 0, url=HOOK)
    await spend(database, 1)
    await alerts.check()
    [hook] = outside.received
    signed = f"{hook.headers['webhook-id']}.{hook.headers['webhook-timestamp']}.".encode() + hook.body
    wanted = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    signatures = hook.headers["webhook-signature"].split(" ")
    assert len(signatures) == 2 and signatures[0] == f"v1,{wanted}"


async def test_of_a_project(alerts: Alerts, database: Database, outside: Receiver) -> None:
    await add_alert(database, "alert_1", 100, url=HOOK, project="proj_1")
    await spend(database, 5000 * CENT)
    await alerts.check()
    assert not outside.received
    await spend(database, 100 * CENT, "proj_1")
    await alerts.check()
    assert outside.received[0].json["data"]["project"] == {"id": "proj_1", "name": "Research"}


async def test_months_that_are_over(alerts: Alerts, database: Database, outside: Receiver) -> None:
    await add_alert(database, "alert_1", 100, url=HOOK)
    await spend(database, 5000 * CENT, month="(now() - interval '40 days')")
    await alerts.check()
    assert not outside.received


async def test_a_receiver_that_fails_is_asked_ever_more_seldom(
    alerts: Alerts, database: Database, outside: Receiver, clock: Clock
) -> None:
    await add_alert(database, "alert_1", 1, url=HOOK)
    await spend(database, CENT)
    outside.statuses = [500, 302, 404]
    outside.location = HOOK
    asked = []
    for _ in range(12):
        before = len(outside.received)
        await alerts.check()
        asked.append(len(outside.received) - before)
        clock.now += 1
    assert asked == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert len({hook.headers["webhook-id"] for hook in outside.received}) == 1
    assert await sent(database) == [("alert_1", "webhook")]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://inside.example/x",
        "https://169.254.169.254/latest/meta-data",
        "http://hooks.example/x",
        "https://user:password@hooks.example/x",
        "https://hooks.example:0/x",
        "https://nobody.example/x",
        "nonsense",
    ],
)
async def test_what_an_owner_may_not_reach(
    alerts: Alerts, database: Database, outside: Receiver, clock: Clock, url: str
) -> None:
    await add_alert(database, "alert_1", 1, url=url)
    await spend(database, CENT)
    await alerts.check()
    clock.now += 5
    await alerts.check()
    assert not outside.received and not await sent(database)


async def test_a_name_that_turns_to_the_inside(
    alerts: Alerts, database: Database, outside: Receiver, clock: Clock
) -> None:
    """Its certificate is for another name, so the first attempt fails; the second is not made."""
    await add_alert(database, "alert_1", 1, url="https://turning.example/x")
    await spend(database, CENT)
    await alerts.check()
    clock.now += 5
    await alerts.check()
    assert not outside.received and not await sent(database)


async def test_what_the_operator_allows(alerts: Alerts, database: Database, poster: Poster) -> None:
    """It is connected to; the certificate still has to be right."""
    await add_alert(database, "alert_1", 1, url="https://own.example/x")
    await spend(database, CENT)
    await alerts.check()
    assert ("127.0.0.1", 443) in poster._connector._network.connected  # type: ignore[attr-defined]


async def test_two_processes_send_once(
    alerts: Alerts, store: NotificationsStore, poster: Poster, database: Database, outside: Receiver
) -> None:
    other = Alerts(store, poster, NotificationsSettings(), secrets_of(SECRETS))
    for number in range(6):
        await add_alert(database, f"alert_{number}", 1, url=HOOK)
    await spend(database, CENT)
    outside.may_answer.clear()
    both = asyncio.gather(alerts.check(), other.check())
    await outside.wait_for(4)
    await asyncio.sleep(0.1)
    outside.may_answer.set()
    await both
    await alerts.check()
    assert len(outside.received) == 6 == len(await sent(database))


async def test_a_receiver_that_hangs_is_given_up_and_tried_again(
    alerts: Alerts, database: Database, outside: Receiver, clock: Clock
) -> None:
    await add_alert(database, "alert_1", 1, url=HOOK)
    await spend(database, CENT)
    outside.may_answer.clear()
    await alerts.check()
    assert not await sent(database)
    outside.may_answer.set()
    clock.now += 2
    await alerts.check()
    assert await sent(database) == [("alert_1", "webhook")]


async def test_killed_before_it_is_written_down(alerts: Alerts, database: Database, outside: Receiver) -> None:
    """Told again, with the same id, and never forgotten."""
    await add_alert(database, "alert_1", 1, url=HOOK)
    await spend(database, CENT)
    outside.may_answer.clear()
    killed = asyncio.create_task(alerts.check())
    await outside.wait_for(1)
    killed.cancel()
    await asyncio.wait([killed])
    assert not await sent(database)
    outside.may_answer.set()
    await alerts.check()
    first, second = outside.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert await sent(database) == [("alert_1", "webhook")]


async def test_an_alert_that_is_deleted_meanwhile(alerts: Alerts, database: Database, outside: Receiver) -> None:
    await add_alert(database, "alert_1", 1, url=HOOK)
    await spend(database, CENT)
    outside.may_answer.clear()
    sending = asyncio.create_task(alerts.check())
    await outside.wait_for(1)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM spend_alerts")
    outside.may_answer.set()
    await sending
    assert not await sent(database)
