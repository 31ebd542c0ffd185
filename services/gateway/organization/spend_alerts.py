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
from services.gateway.calls import Call
from services.gateway.organization.actors import ActorOf
from services.gateway.organization.paging import MOST_BODY_BYTES, listed, parse_listing
from services.gateway.organization.places import project_of
from services.gateway.organization.spend_limits import CURRENCY, INTERVAL, MOST_CENTS, owner_kind
from services.gateway.requests.values import (
    Json,
    integer,
    members,
    one_of,
    parse_fields,
    string,
    strings,
)

MOST_RECIPIENTS: Final = 50
_CHANNEL: Final = {"type": one_of("email"), "recipients": strings(MOST_RECIPIENTS), "subject_prefix": string}


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
            email_recipients=channel["recipients"],
            subject_prefix=channel.get("subject_prefix", ""),
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
    """How to tell, and whom. Raises InvalidRequest."""
    return members(path, value, _CHANNEL, ("type", "recipients"))


BUILT: Final = {
    "threshold_amount": integer(0, MOST_CENTS),
    "currency": one_of(CURRENCY),
    "interval": one_of(INTERVAL),
    "notification_channel": parse_channel,
}


def _shown(call: Call, alert: SpendAlert) -> dict[str, Any]:
    """As OpenAI's API shows an alert."""
    return {
        "object": f"{owner_kind(call)}.spend_alert",
        "id": alert.id,
        "threshold_amount": alert.threshold_cents,
        "currency": CURRENCY,
        "interval": INTERVAL,
        "notification_channel": {
            "type": "email",
            "recipients": list(alert.email_recipients),
            "subject_prefix": alert.subject_prefix or None,
        },
    }
