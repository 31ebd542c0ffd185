"""Keeps the hard monthly spend limits and the spend alerts of organisations and projects."""

from modelplane.tenants.v1 import tenants_pb2 as pb
from services import asked
from services.faults import NotFound
from services.identifiers import new_id
from services.tenants import checks, lookups
from services.tenants.store import TenantsStore


class Spend:
    """The contract's part about spending."""

    def __init__(self, store: TenantsStore) -> None:
        self._store = store

    async def get_spend_limit(self, request: pb.GetSpendLimitRequest, /) -> pb.GetSpendLimitResponse:
        async with self._store.transaction() as records:
            await lookups.owner(records, request.organization_id, request.project_id)
            limit = await records.spend.limit(request.organization_id, request.project_id)
        return pb.GetSpendLimitResponse(spend_limit=limit)

    async def set_spend_limit(self, request: pb.SetSpendLimitRequest, /) -> pb.SetSpendLimitResponse:
        threshold_cents = asked.number(request.spend_limit.threshold_cents, 1, asked.MOST_CENTS, "threshold_amount")
        async with self._store.transaction() as records:
            await lookups.active_owner(records, request.organization_id, request.project_id)
            await records.spend.set_limit(request.organization_id, request.project_id, threshold_cents)
            await records.audit(
                "spend_limit.updated",
                request.organization_id,
                request.actor,
                request.project_id or request.organization_id,
                project_id=request.project_id,
                changes_requested={"threshold_amount": threshold_cents},
            )
            limit = await records.spend.limit(request.organization_id, request.project_id)
        return pb.SetSpendLimitResponse(spend_limit=limit)

    async def delete_spend_limit(self, request: pb.DeleteSpendLimitRequest, /) -> pb.DeleteSpendLimitResponse:
        async with self._store.transaction() as records:
            await lookups.active_owner(records, request.organization_id, request.project_id)
            if not await records.spend.delete_limit(request.organization_id, request.project_id):
                raise NotFound("spend_limit_not_found", "There is no spend limit.")
            await records.audit(
                "spend_limit.deleted",
                request.organization_id,
                request.actor,
                request.project_id or request.organization_id,
                project_id=request.project_id,
            )
        return pb.DeleteSpendLimitResponse()

    async def put_spend_alert(self, request: pb.PutSpendAlertRequest, /) -> pb.PutSpendAlertResponse:
        checks.alert(request.spend_alert)
        given = pb.SpendAlert()
        given.CopyFrom(request.spend_alert)
        async with self._store.transaction() as records:
            await lookups.active_owner(records, request.organization_id, request.project_id)
            spend, of = records.spend, (request.organization_id, request.project_id)
            if given.id:
                kind, part = "spend_alert.updated", "changes_requested"
                alert = None if asked.has_nul(given.id) else await spend.replace_alert(*of, given)
            else:
                kind, part = "spend_alert.created", "data"
                given.id = new_id("alert_")
                alert = await spend.add_alert(*of, given)
            if alert is None:
                raise no_alert(given.id)
            await records.audit(
                kind,
                request.organization_id,
                request.actor,
                alert.id,
                project_id=request.project_id,
                **{part: _shown(alert)},
            )
        return pb.PutSpendAlertResponse(spend_alert=alert)

    async def get_spend_alert(self, request: pb.GetSpendAlertRequest, /) -> pb.GetSpendAlertResponse:
        alert = None
        async with self._store.transaction() as records:
            await lookups.owner(records, request.organization_id, request.project_id)
            if not asked.has_nul(request.spend_alert_id):
                alert = await records.spend.alert(request.organization_id, request.project_id, request.spend_alert_id)
        if alert is None:
            raise no_alert(request.spend_alert_id)
        return pb.GetSpendAlertResponse(spend_alert=alert)

    async def list_spend_alerts(self, request: pb.ListSpendAlertsRequest, /) -> pb.ListSpendAlertsResponse:
        asked.page(request.page)
        async with self._store.transaction() as records:
            await lookups.owner(records, request.organization_id, request.project_id)
            alerts, has_more = await records.spend.alerts(request.organization_id, request.project_id, request.page)
        return pb.ListSpendAlertsResponse(spend_alerts=alerts, has_more=has_more)

    async def delete_spend_alert(self, request: pb.DeleteSpendAlertRequest, /) -> pb.DeleteSpendAlertResponse:
        alert_id = request.spend_alert_id
        async with self._store.transaction() as records:
            await lookups.active_owner(records, request.organization_id, request.project_id)
            spend, of = records.spend, (request.organization_id, request.project_id)
            if asked.has_nul(alert_id) or not await spend.delete_alert(*of, alert_id):
                raise no_alert(alert_id)
            await records.audit(
                "spend_alert.deleted", request.organization_id, request.actor, alert_id, project_id=request.project_id
            )
        return pb.DeleteSpendAlertResponse()


def _shown(alert: pb.SpendAlert) -> dict[str, object]:
    """As the audit log shows it; a webhook's URL may hold a secret."""
    return {
        "threshold_amount": alert.threshold_cents,
        "recipients": list(alert.email_recipients),
        "subject_prefix": alert.subject_prefix,
        "webhook": bool(alert.webhook_url),
    }


def no_alert(alert_id: str) -> NotFound:
    return NotFound("spend_alert_not_found", f"No such spend alert: '{alert_id}'.", param="alert_id")
