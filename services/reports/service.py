"""Answers what was used and what it cost. Reads only, but for the roll-ups, which it can make anew.

Keeps true: the sums are those of the records, to the second, whether they come from roll-ups or not; one organisation's
question is never answered with another's figures; no question takes more than it may of the database's time or of
anybody's memory, and questions leave connections for those who serve requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from modelplane.reports.v1 import reports_pb2 as pb
from services import asked
from services.compose import Context
from services.faults import Fault, InvalidRequest
from services.reports import lines, periods
from services.reports.endpoints import ENDPOINTS, SOURCES, Counted
from services.reports.periods import DAY_S, HOUR_S, LAST_S, MINUTE_S, Page, Span
from services.reports.settings import ReportsSettings
from services.reports.store import CostsStore, Question, RecordsStore, RollupsStore, Sum, UsageStore
from services.reports.store.records import Place
from services.storage import Database

# The most buckets of each width that one page may have.
MOST_BUCKETS: Final[Mapping[int, int]] = {MINUTE_S: 1440, HOUR_S: 168, DAY_S: 31}
MOST_COST_BUCKETS: Final = 180
COST_GROUPS: Final = ("project_id", "api_key_id", "line_item")
EXPORT_PAGE: Final = 1000
_OPERATIONS: Final[Mapping[str, str]] = {operation: source for source, operation in SOURCES.items()}


class Answered(NamedTuple):
    """The sums of each bucket that is told of, and the cursor of the next one."""

    buckets: Sequence[tuple[Span, Sequence[Sum]]]
    next_page: str


class Reports:
    """The contract ReportsService. `clock` gives seconds of the epoch."""

    def __init__(
        self, database: Database, settings: ReportsSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._usage = UsageStore(database, settings.statement_timeout_s)
        self._costs = CostsStore(database, settings.statement_timeout_s)
        self._records = RecordsStore(database, settings.statement_timeout_s)
        self._rollups = RollupsStore(database)
        self._turns = asyncio.Semaphore(settings.concurrent_queries)
        self._most = settings.most_results
        self._clock = clock
        self.ping = database.ping

    async def query_usage(self, request: pb.QueryUsageRequest, /) -> pb.QueryUsageResponse:
        counted = ENDPOINTS.get(request.endpoint)
        if counted is None:
            raise InvalidRequest("invalid_value", "There is no such endpoint.", param="endpoint")
        _groups(request.group_by, counted.groups)
        if request.bucket_s not in MOST_BUCKETS:
            raise InvalidRequest("invalid_value", "Buckets are minutes, hours or days.", param="bucket_width")
        page = self._page(request, request.bucket_s, MOST_BUCKETS[request.bucket_s])
        groups = ["operation" if name == "source" else name for name in request.group_by]
        filters = _filters(request, counted)
        if not page.buckets:
            return pb.QueryUsageResponse()
        hours, edges = periods.split(page)
        question = Question(
            organization_id=request.organization_id,
            bucket_s=page.bucket_s,
            hours=hours,
            edges=edges,
            filters=filters,
            groups=groups,
            measures=counted.measures,
            most=self._most + 1,
        )
        async with self._turns:
            if counted.tool:
                sums = await self._usage.calls(question, counted.tool)
            else:
                sums = await self._usage.requests(question)
        answered = self._answered(page, sums)
        return pb.QueryUsageResponse(
            buckets=[
                pb.UsageBucket(start_time=span.since_s, end_time=span.until_s, results=map(_usage_result, found))
                for span, found in answered.buckets
            ],
            next_page=answered.next_page,
        )

    async def query_costs(self, request: pb.QueryCostsRequest, /) -> pb.QueryCostsResponse:
        _groups(request.group_by, COST_GROUPS)
        page = self._page(request, DAY_S, MOST_COST_BUCKETS)
        groups = [name for name in request.group_by if name != "line_item"]
        if "line_item" in request.group_by:
            groups += ["model", "line"]
        filters = {"project_id": request.project_ids, "api_key_id": request.api_key_ids}
        if not page.buckets:
            return pb.QueryCostsResponse()
        hours, edges = periods.split(page)
        question = Question(
            organization_id=request.organization_id,
            bucket_s=page.bucket_s,
            hours=hours,
            edges=edges,
            filters={name: list(values) for name, values in filters.items() if values},
            groups=groups,
            measures=("nanodollars", "quantity"),
            most=self._most + 1,
        )
        async with self._turns:
            sums = await self._costs.costs(question)
        answered = self._answered(page, sums)
        return pb.QueryCostsResponse(
            buckets=[
                pb.CostBucket(start_time=span.since_s, end_time=span.until_s, results=map(_cost_result, found))
                for span, found in answered.buckets
            ],
            next_page=answered.next_page,
        )

    async def export_usage(self, request: pb.ExportUsageRequest, /) -> AsyncIterator[pb.ExportUsageResponse]:
        """A thousand records at a time. What is recorded meanwhile may or may not be among them."""
        span = _span(request)
        if request.organization_id:
            organizations: Sequence[str] = [request.organization_id]
        else:
            organizations = await self._records.organizations()
        for organization_id in organizations:
            if asked.has_nul(organization_id):
                continue
            after: Place | None = None
            while found := await self._records.page(organization_id, span, after, EXPORT_PAGE):
                yield pb.ExportUsageResponse(records=found)
                after = Place(found[-1].usage.finished_at_ms, found[-1].usage.request_id)

    async def rebuild(self, request: pb.RebuildRequest, /) -> AsyncIterator[pb.RebuildResponse]:
        """One organisation after the other."""
        span = _span(request)
        hours = Span(span.since_s // HOUR_S * HOUR_S, -(-span.until_s // HOUR_S) * HOUR_S)
        records = 0
        for organization_id in await self._rollups.organizations():
            since_s = hours.since_s
            while since_s < hours.until_s:
                step = await self._rollups.rebuild(organization_id, Span(since_s, hours.until_s))
                since_s = step.next_s
                records += step.records
                yield pb.RebuildResponse(records=records)
        yield pb.RebuildResponse(records=records)

    def _page(self, request: pb.QueryUsageRequest | pb.QueryCostsRequest, bucket_s: int, most: int) -> Page:
        asked.number(request.limit, 1, most, "limit")
        period = periods.period(request.start_time, request.end_time, bucket_s, int(self._clock()))
        page = periods.page(period, request.limit, request.page)
        # Of an organisation that cannot be.
        return page._replace(buckets=()) if asked.has_nul(request.organization_id) else page

    def _answered(self, page: Page, sums: Sequence[Sum]) -> Answered:
        """Without the buckets of which not all sums are there. Raises InvalidRequest when that is the first."""
        until_s = page.span.until_s
        next_page = periods.cursor(until_s) if page.has_more else ""
        if len(sums) > self._most:
            until_s = sums[-1].bucket_s
            if until_s <= page.span.since_s:
                raise _too_many(self._most)
            next_page = periods.cursor(until_s)
        found: dict[int, list[Sum]] = {}
        for one in sums:
            found.setdefault(one.bucket_s, []).append(one)
        buckets = [
            (span, found.get(span.since_s // page.bucket_s * page.bucket_s, ()))
            for span in page.buckets
            if span.since_s < until_s
        ]
        return Answered(buckets, next_page)


def _groups(asked_for: Sequence[str], possible: Sequence[str]) -> None:
    """Raises InvalidRequest for one that is not possible, or asked for twice."""
    for index, name in enumerate(asked_for):
        if name not in possible or name in asked_for[:index]:
            raise InvalidRequest(
                "invalid_value",
                f"Invalid 'group_by': '{name}'. Each of these is possible once: {', '.join(possible)}.",
                param="group_by",
            )


def _filters(request: pb.QueryUsageRequest, counted: Counted) -> dict[str, list[Any]]:
    """The values that count, by the name of the field that has one of them. Raises InvalidRequest for fields that the
    endpoint does not know."""
    given = request.filters
    filters: dict[str, list[Any]] = {
        "project_id": list(given.project_ids),
        "user_id": list(given.user_ids),
        "api_key_id": list(given.api_key_ids),
        "model": list(given.models),
        "batch": [given.batch] if given.HasField("batch") else [],
        "size": list(given.sizes),
        "source": list(given.sources),
    }
    wanted = {name: values for name, values in filters.items() if values}
    for name in wanted:
        if name not in counted.groups:
            raise InvalidRequest("invalid_value", f"This endpoint has no '{name}'.", param="filters")
    sources = wanted.pop("source", None)
    if sources is not None:
        wanted["operation"] = [SOURCES[source] for source in sources if source in SOURCES]
    elif counted.operations:
        wanted["operation"] = list(counted.operations)
    return wanted


def _span(request: pb.ExportUsageRequest | pb.RebuildRequest) -> Span:
    """Raises InvalidRequest."""
    until_s = request.end_time or LAST_S
    if not 0 <= request.start_time <= LAST_S or not 0 <= until_s <= LAST_S:
        raise InvalidRequest("invalid_value", "The times are Unix seconds.", param="start_time")
    if until_s <= request.start_time:
        raise InvalidRequest("invalid_value", "The period must end after it begins.", param="end_time")
    return Span(request.start_time, until_s)


def _usage_result(of: Sum) -> pb.UsageResult:
    fields: dict[str, Any] = {**of.groups, **of.measures}
    if "operation" in fields:
        fields["source"] = _OPERATIONS[fields.pop("operation")]
    return pb.UsageResult(**fields)


def _cost_result(of: Sum) -> pb.CostResult:
    groups = dict(of.groups)
    if "line" not in groups:
        return pb.CostResult(**groups, nanodollars=of.measures["nanodollars"])
    model, line = groups.pop("model"), groups.pop("line")
    result = pb.CostResult(**groups, line_item=f"{model}, {line}", nanodollars=of.measures["nanodollars"])
    if counted := lines.shown(line, of.measures["quantity"]):
        result.quantity, result.quantity_unit = counted
    return result


def _too_many(most: int) -> Fault:
    return InvalidRequest(
        "invalid_value",
        f"One bucket has more than {most} groups. Group by fewer fields, ask for narrower buckets, or name some of the "
        "projects, users, keys or models.",
        param="group_by",
    )


@asynccontextmanager
async def build(context: Context) -> AsyncIterator[Reports]:
    yield Reports(context.database(), context.settings(ReportsSettings))
