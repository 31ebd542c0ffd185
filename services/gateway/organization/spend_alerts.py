"""/v1/organization/spend_alerts and the same of a project: who hears of it when how much is spent."""

from typing import Any, Final

import msgspec

from modelplane.tenants.v1.tenants_api import TenantsService
from modelplane.tenants.v1.tenants_pb2 import (
    DeleteSpendAlertRequest,
    GetSpendAlertRequest,
    ListSpendAlertsRequest,
    PutSpendAlertRequest,
    SpendAlert,
)
from services.asked import MOST_CENTS
from services.faults import InvalidRequest
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.organization.spend_limits import CURRENCY, INTERVAL, owner_kind
from services.gateway.requests.values import (
    Json,
    integer,
    members,
    one_of,
    parse_fields,
    string,
    strings,
)
from services.internet import locations
from services.internet.locations import LocationError, Rules

MOST_RECIPIENTS: Final = 50
EMAIL: Final = "email"
WEBHOOK: Final = "webhook"
_EMAIL: Final = {
    "type": one_of(EMAIL, WEBHOOK),
    "recipients": strings(MOST_RECIPIENTS),
    "subject_prefix": string,
}
# Where it leads is checked when it is used: names change their addresses.
_RULES: Final = Rules(allow_http=False, ports=range(1, 65536), private_hosts=frozenset())


class SpendAlerts:
    """The endpoints, of the organisation where the path names no project. `actor_of` says who makes a call, for the
    audit log."""

    def __init__(self, tenants: TenantsService, actor_of: ActorOf) -> None:
        self._tenants = tenants
        self._actor_of = actor_of

    async def list_all(self, call: Call) -> None:
        """A page, the oldest first."""
        page = parse_listing(call.query, ascending=True).page
        found = await self._tenants.list_spend_alerts(ListSpendAlertsRequest(**project_of(call), page=page))
        await call.respond(200, listed([_shown(call, alert) for alert in found.spend_alerts], found.has_more))

    async def get(self, call: Call) -> None:
        request = GetSpendAlertRequest(**project_of(call), spend_alert_id=call.parameters["alert_id"])
        found = await self._tenants.get_spend_alert(request)
        await call.respond(200, msgspec.json.encode(_shown(call, found.spend_alert)))

    async def put(self, call: Call) -> None:
        """Makes an alert, or replaces the one that the path names."""
        _, values = parse_fields(await call.body(MOST_BODY_BYTES), BUILT, {}, (), tuple(BUILT))
        channel = values["notification_channel"]
        alert = SpendAlert(
            id=call.parameters.get("alert_id", ""),
            threshold_cents=values["threshold_amount"],
            email_recipients=channel.get("recipients", ()),
            subject_prefix=channel.get("subject_prefix", ""),
            webhook_url=channel.get("url", ""),
        )
        kept = await self._tenants.put_spend_alert(
            PutSpendAlertRequest(**project_of(call), spend_alert=alert, actor=self._actor_of(call))
        )
        await call.respond(200, msgspec.json.encode(_shown(call, kept.spend_alert)))

    async def delete(self, call: Call) -> None:
        alert_id = call.parameters["alert_id"]
        await self._tenants.delete_spend_alert(
            DeleteSpendAlertRequest(**project_of(call), spend_alert_id=alert_id, actor=self._actor_of(call))
        )
        gone = {"object": f"{owner_kind(call)}.spend_alert.deleted", "id": alert_id, "deleted": True}
        await call.respond(200, msgspec.json.encode(gone))


def parse_channel(path: str, value: Json) -> dict[str, Any]:
    """How to tell, and whom: by e-mail, or by a webhook, which OpenAI's API does not have. Raises InvalidRequest."""
    if type(value) is dict and value.get("type") == WEBHOOK:
        return members(path, value, _WEBHOOK, ("type", "url"))
    return members(path, value, _EMAIL, ("type", "recipients"))


def parse_url(path: str, value: Json) -> str:
    """The URL of a web server that speaks TLS. Raises InvalidRequest."""
    url = string(path, value)
    try:
        locations.read(url, _RULES)
    except LocationError as error:
        raise InvalidRequest("invalid_value", f"Invalid '{path}': {error}.", param=path) from error
    return url


_WEBHOOK: Final = {"type": one_of(WEBHOOK), "url": parse_url}


BUILT: Final = {
    "threshold_amount": integer(0, MOST_CENTS),
    "currency": one_of(CURRENCY),
    "interval": one_of(INTERVAL),
    "notification_channel": parse_channel,
}


def _shown(call: Call, alert: SpendAlert) -> dict[str, Any]:
    """As OpenAI's API shows an alert."""
    channel: dict[str, Any] = {
        "type": EMAIL,
        "recipients": list(alert.email_recipients),
        "subject_prefix": alert.subject_prefix or None,
    }
    if alert.webhook_url:
        channel = {"type": WEBHOOK, "url": alert.webhook_url}
    return {
        "object": f"{owner_kind(call)}.spend_alert",
        "id": alert.id,
        "threshold_amount": alert.threshold_cents,
        "currency": CURRENCY,
        "interval": INTERVAL,
        "notification_channel": channel,
    }
