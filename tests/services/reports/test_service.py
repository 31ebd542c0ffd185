"""What the service refuses, whom it tells nothing, how long its pages get, and exports."""

from typing import Any

import pytest

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.usage.v1.usage_pb2 import Usage
from services.faults import InvalidRequest
from services.reports.settings import ReportsSettings
from tests.services.ledger import written
from tests.services.reports.conftest import Desk
from tests.services.reports.records import DAY_S, HOUR_S, NOVEMBER_S
from tests.services.reports.test_rollups import usage


def query(**changes: Any) -> pb.QueryUsageRequest:
    values: dict[str, Any] = {
        "organization_id": "org-0",
        "endpoint": pb.ENDPOINT_COMPLETIONS,
        "start_time": NOVEMBER_S,
        "end_time": NOVEMBER_S + 3 * DAY_S,
        "bucket_s": DAY_S,
        "limit": 31,
    }
    return pb.QueryUsageRequest(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": 0}, "endpoint"),
        ({"endpoint": 99}, "endpoint"),
        ({"bucket_s": 7}, "bucket_width"),
        ({"limit": 0}, "limit"),
        ({"limit": 32}, "limit"),
        ({"bucket_s": 3600, "limit": 169}, "limit"),
        ({"bucket_s": 60, "limit": 1441}, "limit"),
        ({"start_time": -1}, "start_time"),
        ({"start_time": 2**62}, "start_time"),
        ({"end_time": 2**62}, "end_time"),
        ({"end_time": NOVEMBER_S}, "end_time"),
        ({"group_by": ["size"]}, "group_by"),
        ({"group_by": ["model", "model"]}, "group_by"),
        ({"endpoint": pb.ENDPOINT_IMAGES, "filters": pb.Filters(batch=False)}, "filters"),
        ({"page": "x"}, "page"),
        ({"page": "page_"}, "page"),
        ({"page": "page_AAAAAAAAAAA="}, "page"),
        ({"page": "\0"}, "page"),
        ({"page": "é"}, "page"),
    ],
)
async def test_refusals(desk: Desk, changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await desk.reports.query_usage(query(**changes))
    assert raised.value.param == param


async def test_a_page_of_another_report_is_refused(desk: Desk) -> None:
    page = (await desk.reports.query_usage(query(bucket_s=3600, limit=1))).next_page
    assert page
    with pytest.raises(InvalidRequest):
        await desk.reports.query_usage(query(page=page))
    with pytest.raises(InvalidRequest):
        await desk.reports.query_usage(query(bucket_s=3600, limit=1, start_time=NOVEMBER_S + DAY_S, page=page))


@pytest.mark.parametrize("organization_id", ["", "org-2", "org-0\0"])
async def test_others_see_nothing(desk: Desk, organization_id: str) -> None:
    await written.add_usage(desk.database, [usage(number) for number in range(20)])
    used = await desk.reports.query_usage(query(organization_id=organization_id))
    assert not [result for bucket in used.buckets for result in bucket.results]
    request = pb.QueryCostsRequest(organization_id=organization_id, start_time=NOVEMBER_S, limit=7)
    assert not [result for bucket in (await desk.reports.query_costs(request)).buckets for result in bucket.results]
    # Nobody's export is that of all, for operators.
    exported = [answer async for answer in desk.reports.export_usage(pb.ExportUsageRequest(organization_id="org-2"))]
    assert not exported


async def test_what_begins_later_has_no_buckets(desk: Desk) -> None:
    answer = await desk.reports.query_usage(query(start_time=NOVEMBER_S + 99 * DAY_S, end_time=0))
    assert answer == pb.QueryUsageResponse()


async def test_a_page_with_many_results_ends_early(desk: Desk) -> None:
    """Each bucket comes once all the same."""
    await written.add_usage(desk.database, [usage(number) for number in range(40)])
    few = desk.with_settings(ReportsSettings(most_results=5))
    asked = query(bucket_s=3600, limit=10, end_time=NOVEMBER_S + 8 * HOUR_S, group_by=["project_id", "service_tier"])
    whole = (await desk.reports.query_usage(asked)).buckets
    found: list[pb.UsageBucket] = []
    while True:
        answer = await few.query_usage(asked)
        assert sum(len(bucket.results) for bucket in answer.buckets) <= 5
        found += answer.buckets
        if not answer.next_page:
            break
        asked.page = answer.next_page
    assert found == list(whole)
    with pytest.raises(InvalidRequest) as raised:
        await few.query_usage(query(group_by=["project_id", "service_tier"]))
    assert raised.value.param == "group_by"


async def test_refunds_count_when_they_are_made(desk: Desk) -> None:
    usages = [usage(number) for number in range(0, 20, 2)]
    await written.add_organizations(desk.database, "org-0")
    await written.add_usage(desk.database, usages)
    # It is given back in the first second of the month.
    await written.add_refund(desk.database, usages[5])
    for end_time in (NOVEMBER_S + HOUR_S, NOVEMBER_S + 1):
        request = pb.QueryCostsRequest(
            organization_id="org-0", start_time=NOVEMBER_S, end_time=end_time, limit=7, group_by=["line_item"]
        )
        (bucket,) = (await desk.reports.query_costs(request)).buckets
        (refund,) = (result for result in bucket.results if result.line_item == "chat, refund")
        assert refund.nanodollars < 0 and not refund.HasField("quantity") and not refund.quantity_unit


@pytest.mark.parametrize("organization_id", ["org-0", ""])
async def test_exports_have_every_record_once(
    desk: Desk, organization_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.reports.service.EXPORT_PAGE", 3)
    usages = [usage(number) for number in range(30)]
    # At the same time, and later than is asked for.
    usages[3].finished_at_ms = usages[5].finished_at_ms = usages[4].finished_at_ms
    usages[28].finished_at_ms = (NOVEMBER_S + DAY_S) * 1000
    await written.add_usage(desk.database, usages)
    request = pb.ExportUsageRequest(organization_id=organization_id, end_time=NOVEMBER_S + DAY_S)
    pages = [answer.records async for answer in desk.reports.export_usage(request)]
    assert all(1 <= len(page) <= 3 for page in pages)
    found = [record.usage for page in pages for record in page]
    expected = [one for one in usages if one.request_id != "req_0028"]
    if organization_id:
        expected = [one for one in expected if one.attribution.organization_id == organization_id]
    by_time = sorted(expected, key=lambda one: (one.attribution.organization_id, one.finished_at_ms, one.request_id))
    assert found == by_time
    assert sum(record.nanodollars for page in pages for record in page) > 0
    assert all(record.HasField("price_id") for page in pages for record in page)


async def test_a_record_without_a_price(desk: Desk) -> None:
    unknown = Usage.FromString(usage(1).SerializeToString())
    unknown.model = "unknown"
    await written.add_usage(desk.database, [unknown])
    (answer,) = [one async for one in desk.reports.export_usage(pb.ExportUsageRequest())]
    assert not answer.records[0].HasField("price_id")


@pytest.mark.parametrize(("since_s", "until_s"), [(-1, 0), (2**61, 0), (5, 5), (0, 2**61)])
async def test_periods_that_are_none(desk: Desk, since_s: int, until_s: int) -> None:
    with pytest.raises(InvalidRequest):
        await anext(desk.reports.export_usage(pb.ExportUsageRequest(start_time=since_s, end_time=until_s)))
    with pytest.raises(InvalidRequest):
        await anext(desk.reports.rebuild(pb.RebuildRequest(start_time=since_s, end_time=until_s)))
