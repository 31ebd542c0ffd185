"""`modelplane usage`: what was used and what it cost, on the screen or in a file; and the roll-ups, made anew."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from modelplane.reports.v1 import reports_pb2 as pb
from services.cli.audit import seconds
from services.cli.output import Answer, Row, moment
from services.cli.platform import Noun, Platform, Subcommands
from services.cli.usage_files import FORMATS
from services.pricing.rates import dollars

_ENDPOINT: Final = "ENDPOINT_"
WIDTHS: Final = {"1m": (60, 1440), "1h": (3600, 168), "1d": (86_400, 31)}
COST_BUCKETS: Final = 180
WHO: Final = ("project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "size", "source")
COSTS_BY: Final = ("project_id", "line_item", "api_key_id")
ENDPOINTS: Final = {name.removeprefix(_ENDPOINT).lower(): name for name, value in pb.Endpoint.items() if value}


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane usage` and its verbs."""
    noun = Noun(subcommands, "usage", "what was used and what it cost")
    report_ = noun.verb("report", "add up what was used", report)
    report_.add_argument("--endpoint", choices=ENDPOINTS, default="completions", help="default: completions")
    report_.add_argument("--bucket", choices=WIDTHS, default="1d", help="minutes, hours or days; default: 1d")
    report_.add_argument("--by", nargs="*", choices=WHO, default=[], help="what to tell apart")
    costs_ = noun.verb("costs", "add up what it cost, in dollars", costs)
    costs_.add_argument("--by", nargs="*", choices=COSTS_BY, default=[], help="what to tell apart")
    export_ = noun.verb("export", "write a row for each request to a file", export, of_one_organization=False)
    export_.add_argument("--organization", default="", metavar="ID", help="default: all")
    export_.add_argument("--format", choices=FORMATS, default="csv", help="default: csv")
    export_.add_argument("--output", type=Path, required=True, metavar="FILE")
    about = "make the sums that reports are made of anew from the records"
    rebuild_ = noun.verb("rebuild", about, rebuild, of_one_organization=False)
    for parser in (report_, costs_):
        parser.add_argument("--project", nargs="*", default=[], metavar="ID", help="default: all")
        _add_period(parser, first="the first of this month")
    for parser in (export_, rebuild_):
        _add_period(parser, first="the first record")


def _add_period(parser: argparse.ArgumentParser, first: str) -> None:
    parser.add_argument(
        "--from", type=seconds, dest="since", metavar="TIME", help=f"for example 2026-11-01, UTC; default: {first}"
    )
    parser.add_argument(
        "--until", type=seconds, default=0, metavar="TIME", help="the first that is not meant; default: now"
    )


async def report(platform: Platform, options: argparse.Namespace) -> Answer:
    """A row for each group in each bucket that has any."""
    bucket_s, limit = WIDTHS[options.bucket]
    request = pb.QueryUsageRequest(
        organization_id=await platform.organization(options),
        endpoint=ENDPOINTS[options.endpoint],
        start_time=_since(options),
        end_time=options.until,
        bucket_s=bucket_s,
        filters=pb.Filters(project_ids=options.project),
        group_by=options.by,
        limit=limit,
    )
    found: list[tuple[pb.UsageBucket, pb.UsageResult]] = []
    while True:
        answer = await platform.reports.query_usage(request)
        found += [(bucket, result) for bucket in answer.buckets for result in bucket.results]
        request.page = answer.next_page
        if not answer.next_page:
            break
    counted = [
        field.name
        for field in pb.UsageResult.DESCRIPTOR.fields
        if field.name not in WHO and any(getattr(result, field.name) for _, result in found)
    ]
    return [
        {"start": moment(bucket.start_time), **{name: getattr(result, name) for name in (*options.by, *counted)}}
        for bucket, result in found
    ]


async def costs(platform: Platform, options: argparse.Namespace) -> Answer:
    """A row for each group on each day that has any."""
    request = pb.QueryCostsRequest(
        organization_id=await platform.organization(options),
        start_time=_since(options),
        end_time=options.until,
        project_ids=options.project,
        group_by=options.by,
        limit=COST_BUCKETS,
    )
    rows: list[Row] = []
    while True:
        answer = await platform.reports.query_costs(request)
        for bucket in answer.buckets:
            rows += [_cost(bucket, result, options.by) for result in bucket.results]
        request.page = answer.next_page
        if not answer.next_page:
            return rows


async def export(platform: Platform, options: argparse.Namespace) -> Answer:
    """Raises OSError for a file that cannot be written."""
    request = pb.ExportUsageRequest(
        organization_id=options.organization, start_time=options.since or 0, end_time=options.until
    )
    records = 0
    with FORMATS[options.format](options.output) as file:
        async for page in platform.reports.export_usage(request):
            file.add(page.records)
            records += len(page.records)
    return {"records": records, "output": str(options.output)}


async def rebuild(platform: Platform, options: argparse.Namespace) -> Answer:
    """With a line on stderr that rewrites itself, where somebody looks on."""
    looked_on = sys.stderr.isatty()
    last = pb.RebuildResponse()
    async for last in platform.reports.rebuild(
        pb.RebuildRequest(start_time=options.since or 0, end_time=options.until)
    ):
        if looked_on:
            print(f"\r\x1b[K{last.records:,} records", end="", file=sys.stderr, flush=True)
    if looked_on:
        print(file=sys.stderr)
    return {"records": last.records}


def _since(options: argparse.Namespace) -> int:
    """As asked for, or the beginning of the month."""
    if options.since is not None:
        return int(options.since)
    now = datetime.fromtimestamp(time.time(), UTC)
    return int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def _cost(bucket: pb.CostBucket, result: pb.CostResult, by: Sequence[str]) -> Row:
    shown: dict[str, Any] = {"day": moment(bucket.start_time), **{name: getattr(result, name) for name in by}}
    if "line_item" in by:
        shown |= {
            "quantity": result.quantity if result.HasField("quantity") else None,
            "unit": result.quantity_unit,
        }
    return {**shown, "dollars": dollars(result.nanodollars)}
