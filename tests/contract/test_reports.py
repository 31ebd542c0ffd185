"""The contract of `reports`: sums, exports and roll-ups, in the same process and behind a socket."""

import pytest

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.reports.v1.reports_api import ReportsService
from services.faults import InvalidRequest
from services.reports.service import Reports
from services.reports.settings import ReportsSettings
from services.storage import Database
from tests.contract.conftest import Wire
from tests.services.ledger import written
from tests.services.ledger.written import NOVEMBER_MS

SINCE_S = NOVEMBER_MS // 1000


@pytest.fixture
async def reports(database: Database, wire: Wire) -> ReportsService:
    """With forty records of two organisations."""
    await written.add_prices(database)
    await written.add_usage(database, [written.usage(number) for number in range(40)])
    return await wire(ReportsService, Reports(database, ReportsSettings()))


async def test_sums(reports: ReportsService) -> None:
    request = pb.QueryUsageRequest(
        organization_id="org-1",
        endpoint=pb.ENDPOINT_COMPLETIONS,
        start_time=SINCE_S,
        end_time=SINCE_S + 86_400,
        bucket_s=86_400,
        group_by=["project_id"],
        limit=1,
    )
    answer = await reports.query_usage(request)
    (bucket,) = answer.buckets
    assert {result.project_id: result.requests for result in bucket.results} == {"proj_1": 10, "proj_3": 10}
    assert not answer.next_page and not bucket.results[0].HasField("model")
    costs = await reports.query_costs(pb.QueryCostsRequest(organization_id="org-1", start_time=SINCE_S, limit=1))
    assert costs.next_page and costs.buckets[0].results[0].nanodollars > 0


async def test_faults(reports: ReportsService) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await reports.query_usage(pb.QueryUsageRequest(organization_id="org-1"))
    assert raised.value.param == "endpoint"
    with pytest.raises(InvalidRequest) as raised:
        await anext(aiter(reports.export_usage(pb.ExportUsageRequest(start_time=2, end_time=1))))
    assert raised.value.param == "end_time"


async def test_streams(reports: ReportsService) -> None:
    exported = [
        record.usage.request_id
        async for answer in reports.export_usage(pb.ExportUsageRequest(organization_id="org-0"))
        for record in answer.records
    ]
    assert exported == [f"req_{number:04}" for number in range(0, 40, 2)]
    told = [answer.records async for answer in reports.rebuild(pb.RebuildRequest())]
    assert told[-1] == 40 and told == sorted(told)
