"""`make bench-usage`: what reports on a month's usage take as the table grows from 1 to 10 million records.

The records are made in the database itself, the roll-ups from them by the platform's own statements, and the service
is asked as the gateway asks it. It ends with the bars; the exit status is 1 when one is short, 2 when nothing could be
measured.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from benchmarks.bars import Bar
from benchmarks.report import machine
from modelplane.reports.v1 import reports_pb2 as pb
from services.reports.periods import Span
from services.reports.service import EXPORT_PAGE, Reports
from services.reports.settings import ReportsSettings
from services.reports.store.records import RecordsStore
from services.storage import Database, StartError
from services.storage.embedded import EmbeddedServer
from services.storage.migrate import upgrade
from services.storage.rollups import USAGE_HOURS

PAGE: Final = Path(__file__).parent / "results" / "usage.md"
SIZES: Final = (1_000_000, 10_000_000)
# With its indexes and the log, and room to spare.
BYTES_PER_RECORD: Final = 900
SMALLER: Final = 3_000_000
ROUNDS: Final = 5
ORGANIZATION: Final = "org-bench"
# November 2026, UTC.
SINCE_S: Final = 1_793_491_200
DAYS: Final = 30
DAY_S: Final = 86_400
UNTIL_S: Final = SINCE_S + DAYS * DAY_S

# 200 keys in 20 projects; each uses three models and two service tiers, every eighth one for batches.
RECORDS: Final[LiteralString] = """
INSERT INTO usage_records (
    request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, outcome, batch,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms, price_id,
    nanodollars
)
SELECT 'req_' || lpad(to_hex(at_ms), 12, '0') || substr(md5(number::text), 1, 20), %(organization)s,
    'proj_' || key / 10, 'key_' || key, 'user-' || key, 'model-' || (key + hash %% 3) %% 6,
    (ARRAY['default', 'flex'])[1 + (hash / 3) %% 2],
    'chat.completions', 1, key %% 8 = 0, 500 + hash %% 1000, hash %% 500, hash %% 400, 0, at_ms - 2000, at_ms, 1,
    1000000 + hash %% 1000
FROM (
    SELECT number, abs(hashint8(number)) AS hash, abs(hashint8(number * 7 + 1)) %% 200 AS key,
        %(since_ms)s + number * (%(until_ms)s - %(since_ms)s) / %(records)s AS at_ms
    FROM generate_series(0::bigint, %(records)s - 1) AS number
) AS made
"""
# What the drain makes from postings; to book three lines for each record would take an hour and tell nothing more.
COSTS: Final[LiteralString] = """
INSERT INTO cost_hours (organization_id, hour, project_id, key_id, model, line, quantity, nanodollars)
SELECT organization_id, hour, project_id, key_id, model, line, sum(input_tokens), sum(input_tokens) * 100
FROM usage_hours CROSS JOIN unnest(ARRAY['input', 'cached_input', 'output']) AS line GROUP BY 1, 2, 3, 4, 5, 6
"""

HOW_TO_READ: Final = """\
One organisation's month: 200 keys in 20 projects, each with three models and two service tiers, spread evenly over the
month. Times are those of the service in one process with its client, the database included; the median of {rounds}
rounds and, in brackets, the slowest. The sizes take turns in every round, after one that does not count. PostgreSQL is
the one that `make up` runs, with its settings; what it reads is mostly in the machine's memory.

- **month by day** has 30 buckets of a day and adds up the roll-ups by the hour, whose number grows with those who use
  something in the same hour and not with the requests.
- **off the hour** begins and ends within an hour: what is left of it is added up from the records.
- **costs** add up roll-ups too, three lines for each group.
- **page of records** is a page of {page} records, as `modelplane usage export` reads them, in the middle of the month.
- **an hour by minutes** adds up the records of an hour: ten times as many when there are ten times as many.
"""


@dataclass(frozen=True)
class Taken:
    """The seconds of one question, run after run."""

    seconds: Sequence[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{self.median_s * 1000:.1f} ({max(self.seconds) * 1000:.1f})"


@dataclass(frozen=True)
class Measured:
    """A table of this size."""

    records: int
    rollups: int
    gigabytes: float
    taken: Mapping[str, Taken]


MONTH: Final = "month by day, by model"
PAGE_OF_RECORDS: Final = f"page of records, {EXPORT_PAGE}"


def usage(**changes: Any) -> pb.QueryUsageRequest:
    """The month by day, but for the changes."""
    values: dict[str, Any] = {
        "organization_id": ORGANIZATION,
        "endpoint": pb.ENDPOINT_COMPLETIONS,
        "start_time": SINCE_S,
        "end_time": UNTIL_S,
        "bucket_s": DAY_S,
        "limit": 31,
    }
    return pb.QueryUsageRequest(**{**values, **changes})


def questions(database: Database) -> Mapping[str, Callable[[], Awaitable[object]]]:
    """By what the page calls them."""
    settings = ReportsSettings()
    reports = Reports(database, settings)
    records = RecordsStore(database, settings.statement_timeout_s)
    middle_s = SINCE_S + DAYS // 2 * DAY_S
    costs = pb.QueryCostsRequest(
        organization_id=ORGANIZATION,
        start_time=SINCE_S,
        end_time=UNTIL_S,
        group_by=["line_item"],
        limit=31,
    )
    return {
        "month by day, not grouped": lambda: reports.query_usage(usage()),
        MONTH: lambda: reports.query_usage(usage(group_by=["model"])),
        "month by day, by project, model and tier": lambda: reports.query_usage(
            usage(group_by=["project_id", "model", "service_tier"])
        ),
        "month by day, by key": lambda: reports.query_usage(usage(group_by=["api_key_id"])),
        "month by day, by model, off the hour": lambda: reports.query_usage(
            usage(group_by=["model"], start_time=SINCE_S + 1801, end_time=UNTIL_S - 1799)
        ),
        "costs of the month by day, by line": lambda: reports.query_costs(costs),
        "page of 7 days, by model": lambda: reports.query_usage(usage(group_by=["model"], limit=7)),
        PAGE_OF_RECORDS: lambda: records.page(ORGANIZATION, Span(middle_s, UNTIL_S), None, EXPORT_PAGE),
        "an hour by minutes, by model": lambda: reports.query_usage(
            usage(group_by=["model"], start_time=middle_s, end_time=middle_s + 3600, bucket_s=60, limit=60)
        ),
    }


async def fill(url: str, records: int) -> tuple[int, float]:
    """Makes the tables; returns the number of roll-ups, and how large it all is in gigabytes."""
    values = {
        "organization": ORGANIZATION,
        "since_ms": SINCE_S * 1000,
        "until_ms": UNTIL_S * 1000,
        "records": records,
    }
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET maintenance_work_mem = '512MB'; SET work_mem = '512MB'")
        await connection.execute(RECORDS, values)
        await connection.execute(sql.SQL(USAGE_HOURS).format(which=sql.SQL("true")))
        await connection.execute(COSTS)
        await connection.execute("VACUUM ANALYZE usage_records, usage_hours, cost_hours")
        cursor = await connection.execute(
            "SELECT (SELECT count(*) FROM usage_hours), pg_database_size(current_database()) / 1e9"
        )
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0]), float(row[1])


async def made(server: EmbeddedServer, records: int) -> tuple[str, int, float]:
    """The url of a new database with so many records; the number of roll-ups, and its gigabytes."""
    name = f"bench_{records}"
    async with await AsyncConnection.connect(server.url, autocommit=True) as connection:
        await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_conninfo(server.url, dbname=name)
    await asyncio.to_thread(upgrade, url)
    started_s = time.monotonic()
    rollups, gigabytes = await fill(url, records)
    print(f"{records} records made in {time.monotonic() - started_s:.0f} s", file=sys.stderr)
    return url, rollups, gigabytes


async def measure(server: EmbeddedServer, sizes: Sequence[int]) -> list[Measured]:
    """Makes all tables, and then asks them in turn: whichever is asked first, while the server is still writing and
    this process is cold, would look slow."""
    tables = [await made(server, records) for records in sizes]
    async with AsyncExitStack() as stack:
        asked: list[Mapping[str, Callable[[], Awaitable[object]]]] = []
        for url, _, _ in tables:
            database = Database(url)
            await database.open()
            stack.push_async_callback(database.close)
            asked.append(questions(database))
        taken: list[dict[str, list[float]]] = [{question: [] for question in one} for one in asked]
        for number in range(-1, ROUNDS):
            for question in asked[0]:
                for one, seconds in zip(asked, taken, strict=True):
                    begun_s = time.perf_counter()
                    await one[question]()
                    if number >= 0:
                        seconds[question].append(time.perf_counter() - begun_s)
    return [
        Measured(records, rollups, gigabytes, {question: Taken(runs) for question, runs in seconds.items()})
        for records, (_, rollups, gigabytes), seconds in zip(sizes, tables, taken, strict=True)
    ]


def bars(measured: Sequence[Measured]) -> list[Bar]:
    """The grouped month in the largest table, the slowest way of grouping it; and how pages grow."""
    smallest, largest = measured[0], measured[-1]
    months = [taken.median_s for question, taken in largest.taken.items() if "month" in question]

    def growth(question: str) -> float:
        return largest.taken[question].median_s / smallest.taken[question].median_s

    size = f"{largest.records // 10**6}m"
    return [
        Bar(f"usage_month_by_day_s_{size}", max(months), "<=", 1),
        Bar(f"usage_records_page_growth_to_{size}", growth(PAGE_OF_RECORDS), "<=", 1.5),
        Bar(f"usage_report_page_growth_to_{size}", growth("page of 7 days, by model"), "<=", 2),
    ]


def page(measured: Sequence[Measured], took_s: float) -> str:
    """The Markdown page."""
    sizes = [f"{one.records:,} records, ms" for one in measured]
    lines = ["# Reports on a month's usage", "", f"Written by `make bench-usage` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    lines += [f"| question | {' | '.join(sizes)} |", f"| --- | {' | '.join('---:' for _ in sizes)} |"]
    for question in measured[0].taken:
        lines.append(f"| {question} | {' | '.join(str(one.taken[question]) for one in measured)} |")
    lines += ["", "## How to read it", "", HOW_TO_READ.format(rounds=ROUNDS, page=EXPORT_PAGE), "## Measured on", ""]
    lines += [machine()]
    lines += [
        f"- {one.records:,} records, {one.rollups:,} roll-ups of usage, {one.gigabytes:.1f} GB with indexes"
        for one in measured
    ]
    return "\n".join([*lines, f"- {took_s:.0f} s in all, most of them to make the records", ""])


async def run(sizes: Sequence[int]) -> list[Measured]:
    """All measurements."""
    with tempfile.TemporaryDirectory(prefix="bench-usage-") as home:
        server = EmbeddedServer(Path(home), durable=False)
        try:
            await server.start()
            return await measure(server, sizes)
        finally:
            await server.stop()


def fitting(sizes: Sequence[int]) -> list[int]:
    """The sizes for which there is room, the largest cut to three million where there is none; it says so."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free >= sum(sizes) * BYTES_PER_RECORD:
        return list(sizes)
    print(f"{free / 1e9:.1f} GB are free: {SMALLER:,} records at most", file=sys.stderr)
    return sorted({min(size, SMALLER) for size in sizes})


def main() -> None:
    parser = argparse.ArgumentParser(description="What reports on a month's usage take")
    parser.add_argument("--records", type=int, nargs="*", default=SIZES, help="how many, from few to many")
    given = parser.parse_args()
    started_s = time.monotonic()
    try:
        measured = asyncio.run(run(fitting(given.records)))
    except StartError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; everything was stopped", file=sys.stderr)
        sys.exit(130)
    text = page(measured, time.monotonic() - started_s)
    print(text)
    held = bars(measured)
    for bar in held:
        print(bar)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text + "\n## Bars\n\n" + "".join(f"    {bar}\n" for bar in held))
    sys.exit(1 if any(bar.short for bar in held) else 0)


if __name__ == "__main__":
    main()
