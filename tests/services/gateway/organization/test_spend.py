"""Spend limits and alerts of an organisation and of a project, as the official SDK administers them."""

from typing import Any

import openai
import pytest
from openai.resources.admin.organization import AsyncOrganization

from services.storage import Database
from tests.services.gateway.organization.conftest import Console, Organization

MONTHLY: Any = {"currency": "USD", "interval": "month"}
HOOK = "https://example.com:8443/alerts?key=1"
CHANNEL: Any = {"type": "email", "recipients": ["a@example.com"], "subject_prefix": "Spend"}


async def test_spend_limits(admin: AsyncOrganization, mine: Organization) -> None:
    of_project, project_id = admin.projects.spend_limit, mine.project_id
    with pytest.raises(openai.NotFoundError) as raised:
        await admin.spend_limit.retrieve()
    assert raised.value.code == "spend_limit_not_found"
    own = await admin.spend_limit.update(threshold_amount=10_000, **MONTHLY)
    projects = await of_project.update(project_id, threshold_amount=5_000, **MONTHLY)
    assert own.to_dict() == {
        "object": "organization.spend_limit",
        "threshold_amount": 10_000,
        "enforcement": {"status": "inactive"},
        **MONTHLY,
    }
    assert (projects.object, projects.threshold_amount) == ("project.spend_limit", 5_000)
    assert (await admin.spend_limit.retrieve()).to_dict() == own.to_dict()
    assert (await of_project.retrieve(project_id)).to_dict() == projects.to_dict()
    deleted = await admin.spend_limit.delete()
    assert deleted.to_dict() == {"object": "organization.spend_limit.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await admin.spend_limit.delete()
    assert (await of_project.delete(project_id)).object == "project.spend_limit.deleted"


async def test_a_spend_limit_enforces_when_it_is_used_up(
    admin: AsyncOrganization, mine: Organization, database: Database
) -> None:
    await admin.projects.spend_limit.update(mine.project_id, threshold_amount=100, **MONTHLY)
    for used, status in ((0, "inactive"), (989_999_999, "inactive"), (990_000_000, "enforcing")):
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO spend VALUES (%(organization)s, %(project)s, date_trunc('month', now()), %(used)s), "
                "(%(organization)s, %(project)s, '2020-01-01', 5000000000) "
                "ON CONFLICT (organization_id, project_id, month) DO UPDATE SET nanodollars = excluded.nanodollars",
                {"organization": mine.id, "project": mine.project_id, "used": used},
            )
        limit = await admin.projects.spend_limit.retrieve(mine.project_id)
        assert limit.enforcement.status == status


@pytest.mark.parametrize("of", ["organization", "project"])
async def test_spend_alerts(admin: AsyncOrganization, mine: Organization, of: str) -> None:
    alerts: Any = admin.spend_alerts if of == "organization" else admin.projects.spend_alerts
    first: tuple[str, ...] = () if of == "organization" else (mine.project_id,)
    place: Any = {} if of == "organization" else {"project_id": mine.project_id}
    made = [
        await alerts.create(*first, threshold_amount=cents, notification_channel=CHANNEL, **MONTHLY)
        for cents in (0, 100, 200)
    ]
    assert (made[1].object, made[1].threshold_amount) == (f"{of}.spend_alert", 100)
    assert made[1].notification_channel.to_dict() == CHANNEL
    ids = [alert.id for alert in made]
    assert [alert.id async for alert in alerts.list(*first, limit=1)] == ids
    newest = await alerts.list(*first, order="desc", limit=2)
    assert [alert.id for alert in newest.data] == ids[:0:-1] and newest.has_more
    earlier = await alerts.list(*first, before=ids[2])
    assert [alert.id for alert in earlier.data] == ids[:2]
    plain = {"type": "email", "recipients": ["b@example.com"]}
    changed = await alerts.update(ids[0], **place, threshold_amount=7, notification_channel=plain, **MONTHLY)
    assert (changed.id, changed.threshold_amount) == (ids[0], 7)
    assert changed.notification_channel.subject_prefix is None
    assert (await alerts.retrieve(ids[0], **place)).to_dict() == changed.to_dict()
    gone = await alerts.delete(ids[0], **place)
    assert gone.to_dict() == {"id": ids[0], "object": f"{of}.spend_alert.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError) as raised:
        await alerts.retrieve(ids[0], **place)
    assert raised.value.code == "spend_alert_not_found"


async def test_an_alert_by_webhook(console: Console, mine: Organization) -> None:
    """Which OpenAI's API does not have."""
    webhook = {"type": "webhook", "url": HOOK}
    body = {"threshold_amount": 100, **MONTHLY, "notification_channel": webhook}
    made = (await console.ask(mine.admin_key, "POST", "/v1/organization/spend_alerts", body)).json()
    assert made["notification_channel"] == webhook
    path = f"/v1/organization/spend_alerts/{made['id']}"
    assert (await console.ask(mine.admin_key, "GET", path)).json() == made
    changed = await console.ask(mine.admin_key, "POST", path, {**body, "notification_channel": CHANNEL})
    assert changed.json()["notification_channel"] == CHANNEL


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"threshold_amount": None}, ("missing_required_parameter", "threshold_amount")),
        ({"threshold_amount": -1}, ("integer_below_min_value", "threshold_amount")),
        ({"threshold_amount": 2**62}, ("integer_above_max_value", "threshold_amount")),
        ({"currency": "EUR"}, ("invalid_value", "currency")),
        ({"interval": "day"}, ("invalid_value", "interval")),
        ({"notification_channel": None}, ("missing_required_parameter", "notification_channel")),
        (
            {"notification_channel": {"type": "email"}},
            ("missing_required_parameter", "notification_channel.recipients"),
        ),
        ({"notification_channel": {**CHANNEL, "type": "sms"}}, ("invalid_value", "notification_channel.type")),
        ({"notification_channel": {"type": "webhook"}}, ("missing_required_parameter", "notification_channel.url")),
        (
            {"notification_channel": {"type": "webhook", "url": "http://example.com/"}},
            ("invalid_value", "notification_channel.url"),
        ),
        (
            {"notification_channel": {"type": "webhook", "url": "https://a:b@example.com/"}},
            ("invalid_value", "notification_channel.url"),
        ),
        (
            {"notification_channel": {"type": "webhook", "url": HOOK, "recipients": ["a@example.com"]}},
            ("unknown_parameter", "notification_channel.recipients"),
        ),
        (
            {"notification_channel": {**CHANNEL, "recipients": [1]}},
            ("invalid_type", "notification_channel.recipients[0]"),
        ),
        ({"notification_channel": {**CHANNEL, "recipients": "a"}}, ("invalid_type", "notification_channel.recipients")),
        (
            {"notification_channel": {**CHANNEL, "recipients": ["a@b.c"] * 51}},
            ("array_above_max_length", "notification_channel.recipients"),
        ),
        ({"notification_channel": {**CHANNEL, "recipients": ["nobody"]}}, ("invalid_value", "recipients")),
    ],
)
async def test_alerts_that_cannot_be(
    console: Console, mine: Organization, change: dict[str, Any], refusal: tuple[str, str]
) -> None:
    body = {"threshold_amount": 100, **MONTHLY, "notification_channel": CHANNEL, **change}
    assert await console.refused(mine.admin_key, "POST", "/spend_alerts", body) == (400, *refusal)


async def test_a_limit_of_nothing_is_no_limit(console: Console, mine: Organization) -> None:
    body = {"threshold_amount": 0, **MONTHLY}
    refusal = (400, "integer_below_min_value", "threshold_amount")
    assert await console.refused(mine.admin_key, "POST", "/spend_limit", body) == refusal
