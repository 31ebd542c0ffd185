"""/v1/organization/costs: what usage cost, a day after the other."""

from typing import Any, Final

from modelplane.reports.v1.reports_api import ReportsService
from modelplane.reports.v1.reports_pb2 import CostResult, QueryCostsRequest
from services.gateway.calls import Call
from services.gateway.organization.buckets import Allowed, Width, page_object, parse
from services.gateway.organization.usage import grouped
from services.pricing.rates import NANO

CURRENCY: Final = "usd"
ALLOWED: Final = Allowed(
    {"1d": Width(86_400, 7, 180)},
    ("project_ids", "api_key_ids"),
    ("project_id", "line_item", "api_key_id"),
    unsupported=("line_items",),
    unsupported_groups=("user_id", "api_source"),
)


class Costs:
    """The endpoint."""

    def __init__(self, reports: ReportsService) -> None:
        self._reports = reports

    async def get(self, call: Call) -> None:
        asked = parse(call.query, ALLOWED)
        found = await self._reports.query_costs(
            QueryCostsRequest(
                organization_id=call.caller.organization_id,
                start_time=asked.start_time,
                end_time=asked.end_time,
                **asked.arrays,
                group_by=asked.group_by,
                limit=asked.limit,
                page=asked.page,
            )
        )
        buckets = [
            (bucket.start_time, bucket.end_time, [_shown(result) for result in bucket.results])
            for bucket in found.buckets
        ]
        await call.respond(200, page_object(buckets, found.next_page))


def _shown(result: CostResult) -> dict[str, Any]:
    """As OpenAI's API shows what something cost."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": result.nanodollars / NANO, "currency": CURRENCY},
        "line_item": grouped(result, "line_item"),
        "project_id": grouped(result, "project_id"),
        "api_key_id": grouped(result, "api_key_id"),
        "quantity": result.quantity if result.HasField("quantity") else None,
        "quantity_unit": result.quantity_unit or None,
    }
