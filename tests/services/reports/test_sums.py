"""Whatever was used and whatever is asked: the answer is what a plain sum over the records says."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelplane.reports.v1 import reports_pb2 as pb
from modelplane.usage.v1.usage_pb2 import Usage
from services.pricing import cost
from services.pricing.cost import Price
from services.pricing.rates import parse
from services.reports import lines
from services.reports.endpoints import ENDPOINTS, SOURCES
from services.reports.service import MOST_BUCKETS
from tests.services.reports.conftest import Desk
from tests.services.reports.records import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    NOVEMBER_S,
    PRICES,
    SECONDS,
    add_up,
    buckets,
    usages,
)

EXAMPLES = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
PRICED: Mapping[str, Price] = {model: Price(1, parse(table)) for model, table in PRICES.items()}
VALUES: Mapping[str, tuple[str, ...]] = {
    "project_id": ("proj_1", "proj_2", "no\0ne"),
    "user_id": ("", "user-1"),
    "api_key_id": ("key_1", "key_2"),
    "model": ("chat", "free", "none"),
    "size": ("256x256", "1024x1024"),
    "source": tuple(SOURCES),
}


class Question(NamedTuple):
    """A report on usage; `filters` by the fields of results."""

    endpoint: pb.Endpoint
    since_s: int
    until_s: int
    bucket_s: int
    groups: list[str]
    filters: dict[str, list[Any]]
    limit: int


@st.composite
def questions(draw: st.DrawFn) -> Question:
    endpoint = draw(st.sampled_from((*[pb.ENDPOINT_COMPLETIONS] * 6, *ENDPOINTS)))
    bucket_s = draw(st.sampled_from((MINUTE_S, HOUR_S, DAY_S)))
    since_s, until_s = sorted(draw(st.lists(SECONDS, min_size=2, max_size=2, unique=True)))
    possible = ENDPOINTS[endpoint].groups
    filters: dict[str, list[Any]] = {}
    for name in draw(st.sets(st.sampled_from(possible), max_size=2)):
        if name in VALUES:
            filters[name] = draw(st.lists(st.sampled_from(VALUES[name]), min_size=1, unique=True))
        elif name == "batch":
            filters[name] = [draw(st.booleans())]
    # Mostly all at once, so that an example is no long walk.
    most = MOST_BUCKETS[bucket_s]
    return Question(
        endpoint,
        since_s,
        until_s,
        bucket_s,
        draw(st.lists(st.sampled_from(possible), unique=True)),
        filters,
        draw(st.sampled_from((most, most // 2))),
    )


def who(usage: Usage) -> dict[str, Any]:
    """What a record may be grouped by."""
    sources = {operation: source for source, operation in SOURCES.items()}
    return {
        "project_id": usage.attribution.project_id,
        "user_id": usage.attribution.user_id,
        "api_key_id": usage.attribution.key_id,
        "model": usage.model,
        "batch": usage.batch,
        "service_tier": usage.service_tier,
        "size": usage.image_size,
        "source": sources.get(usage.operation, ""),
    }


def counts(usage: Usage, endpoint: pb.Endpoint) -> dict[str, int] | None:
    """What the endpoint counts of a record; None when it does not count it."""
    counted = ENDPOINTS[endpoint]
    if counted.tool:
        calls = [used.calls for used in usage.tools if used.tool == counted.tool]
        every = {"requests": 1, "tool_calls": sum(calls)}
        return {name: every[name] for name in counted.measures} if calls else None
    if counted.operations and usage.operation not in counted.operations:
        return None
    if endpoint == pb.ENDPOINT_VECTOR_STORES and not usage.stored_byte_seconds:
        return None
    return {name: 1 if name == "requests" else getattr(usage, name) for name in counted.measures}


async def answers(desk: Desk, organization_id: str, question: Question) -> list[pb.UsageBucket]:
    """All pages."""
    plural = {"batch": "batch", **{name: f"{name}s" for name in VALUES}}
    filters: dict[str, Any] = {
        plural[name]: values[0] if name == "batch" else values for name, values in question.filters.items()
    }
    request = pb.QueryUsageRequest(
        organization_id=organization_id,
        endpoint=question.endpoint,
        start_time=question.since_s,
        end_time=question.until_s,
        bucket_s=question.bucket_s,
        filters=pb.Filters(**filters),
        group_by=question.groups,
        limit=question.limit,
    )
    found: list[pb.UsageBucket] = []
    while True:
        answer = await desk.reports.query_usage(request)
        assert len(answer.buckets) <= question.limit
        found += answer.buckets
        if not answer.next_page:
            return found
        request.page = answer.next_page


@EXAMPLES
@given(used=usages(), asked=st.lists(questions(), min_size=4, max_size=4))
async def test_usage(desk: Desk, used: list[Usage], asked: list[Question]) -> None:
    booked = await desk.drain(used)
    organization_ids = {usage.attribution.organization_id for usage in booked}
    for question, organization_id in product(asked, organization_ids):
        found = await answers(desk, organization_id, question)
        spans = list(buckets(question.since_s, question.until_s, question.bucket_s))
        assert [(bucket.start_time, bucket.end_time) for bucket in found] == spans
        for bucket in found:
            rows = [
                (who(usage), counted)
                for usage in booked
                if usage.attribution.organization_id == organization_id
                and bucket.start_time * 1000 <= usage.finished_at_ms < bucket.end_time * 1000
                and all(who(usage)[name] in values for name, values in question.filters.items())
                and (counted := counts(usage, question.endpoint)) is not None
            ]
            results = {}
            for result in bucket.results:
                assert all(result.HasField(name) == (name in question.groups) for name in who(Usage()))
                group = tuple(getattr(result, name) for name in question.groups)
                assert group not in results
                numbers = {name: getattr(result, name) for name in ENDPOINTS[question.endpoint].measures}
                results[group] = {name: number for name, number in numbers.items() if number}
            assert results == add_up(rows, question.groups)


@EXAMPLES
@given(
    used=usages(),
    ends=st.lists(SECONDS, min_size=2, max_size=2, unique=True).map(sorted),
    groups=st.lists(st.sampled_from(("project_id", "api_key_id", "line_item")), unique=True),
    projects=st.lists(st.sampled_from(("proj_1", "proj_2")), unique=True),
    limit=st.integers(1, 3),
)
async def test_costs(
    desk: Desk, used: list[Usage], ends: list[int], groups: list[str], projects: list[str], limit: int
) -> None:
    booked = await desk.drain(used)
    since_s, until_s = ends
    for organization_id in {usage.attribution.organization_id for usage in booked}:
        request = pb.QueryCostsRequest(
            organization_id=organization_id,
            start_time=since_s,
            end_time=until_s,
            group_by=groups,
            project_ids=projects,
            limit=limit,
        )
        found: list[pb.CostBucket] = []
        while not found or request.page:
            answer = await desk.reports.query_costs(request)
            found += answer.buckets
            request.page = answer.next_page
        assert [(one.start_time, one.end_time) for one in found] == list(buckets(since_s, until_s, DAY_S))
        for bucket in found:
            mine = [
                usage
                for usage in booked
                if usage.attribution.organization_id == organization_id
                and bucket.start_time * 1000 <= usage.finished_at_ms < bucket.end_time * 1000
                and (not projects or usage.attribution.project_id in projects)
            ]
            amounts: defaultdict[tuple[str, ...], int] = defaultdict(int)
            quantities: defaultdict[tuple[str, ...], float] = defaultdict(float)
            for usage in mine:
                for line in cost.lines(usage, PRICED[usage.model]):
                    shown = lines.shown(line.name, line.quantity)
                    fields = {**who(usage), "line_item": f"{usage.model}, {line.name}"}
                    group = tuple(fields[name] for name in groups)
                    amounts[group] += line.nanodollars
                    quantities[group] += shown[0] if shown else 0
            results = {tuple(getattr(one, name) for name in groups): one for one in bucket.results}
            assert {group: one.nanodollars for group, one in results.items()} == amounts
            if "line_item" in groups:
                assert all(abs(one.quantity - quantities[group]) < 1e-6 for group, one in results.items())


async def test_a_month_is_asked_about_at_once(desk: Desk) -> None:
    """Without an end it is now; the bucket that it is now is whole."""
    usage = Usage(request_id="req", model="chat", operation="completions", input_tokens=5)
    usage.attribution.organization_id = "org"
    usage.finished_at_ms = int(desk.now_s * 1000) - 1
    (booked,) = await desk.drain([usage])
    answer = await desk.reports.query_usage(
        pb.QueryUsageRequest(
            organization_id=booked.attribution.organization_id,
            endpoint=pb.ENDPOINT_COMPLETIONS,
            start_time=NOVEMBER_S,
            bucket_s=DAY_S,
            limit=31,
        )
    )
    assert not answer.next_page
    assert [bucket.end_time - bucket.start_time for bucket in answer.buckets] == [DAY_S] * 10
    assert [result.input_tokens for bucket in answer.buckets for result in bucket.results] == [5]
