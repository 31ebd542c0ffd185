"""`make bench-ledger`: usage made durable and brought into the ledger, beside inserts of single rows.

The platform's own billing service holds money for requests and records them, as it does in a gateway; then it drains
them into a real PostgreSQL that waits for the disk. Nothing is left out: prices, postings, balances, roll-ups, spend,
leases and credits. In the same rounds other ways insert the same records one at a time. It ends with the bars; the exit
status is 1 when one is short, 2 when nothing could be measured.
"""

import argparse
import asyncio
import gc
import platform
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.bars import Bar
from benchmarks.processes import tree
from benchmarks.report import machine
from benchmarks.servers import ROOT
from modelplane.billing.v1.billing_pb2 import HoldRequest, RecordRequest
from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Attribution, ToolUsage, Usage
from services.billing.prices import Prices
from services.billing.service import Billing, serving
from services.billing.settings import BillingSettings
from services.billing.store import PricesStore, UsageStore
from services.faults import Fault
from services.storage import Database, StartError
from services.storage.embedded import EmbeddedServer
from services.storage.migrate import upgrade

PAGE = ROOT / "benchmarks" / "results" / "ledger.md"
ORGANIZATIONS: Final = 20
CLIENTS: Final = 32
CONNECTIONS: Final = 8
NEVER_MS: Final = 3_600_000
# Requests that are measured at a time: what they are made of stays in the processor's cache, as a gateway's do.
PART: Final = 250
# Parts that are one figure: half a second, in which the spool is forced to the disk ten times.
SLICE: Final = 80
# Requests of a client in one turn of the event loop.
TURN: Final = 8
TICK_S: Final = 0.001
# By then the spool is on the disk.
SYNC_S: Final = 0.2
MODELS: Final = ("large", "small", "open")
TOOLS: Final = '"tools": {"search": "0.01"}'
FURNISHING: Final = f"""
INSERT INTO organizations (id, name, usage_tier) SELECT 'org-' || n, 'Organization', 5
FROM generate_series(0, {ORGANIZATIONS - 1}) AS n;
INSERT INTO credits (organization_id, id, kind, nanodollars, remaining)
SELECT 'org-' || n, 'pay-' || n, 'payment', 1000000000000, 1000000000000 FROM generate_series(0, 4) AS n;
INSERT INTO prices (model, effective_at_ms, source, rates) VALUES
    ('large', 0, 'operator', '{{"input": "2.50", "cached_input": "0.25", "output": "15", {TOOLS}}}'),
    ('small', 0, 'operator', '{{"input": "0.20", "cached_input": "0.02", "output": "1.25", {TOOLS}}}'),
    ('open', 0, 'operator', '{{"input": "0.10", "output": "0.40", {TOOLS}}}');
"""
PLAIN: Final = """
INSERT INTO usage_records (
    request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, outcome, input_tokens,
    cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms, price_id
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0)
"""
SUMS: Final = """
SELECT (SELECT count(*) FROM usage_records WHERE price_id > 0), (SELECT sum(requests) FROM usage_hours),
    (SELECT sum(nanodollars) FROM usage_records), (SELECT sum(nanodollars) FROM cost_hours),
    (SELECT sum(nanodollars) FROM spend WHERE project_id = ''),
    (SELECT sum(CASE debit WHEN 'receivable' THEN nanodollars ELSE -nanodollars END) FROM postings WHERE model <> ''),
    (SELECT sum(nanodollars) FROM balances)
"""
PATH, LEDGER = "hold and record, into the spool", "spool into the ledger, in batches"
BOOKED, ONE_ROW, ROWS = (
    "one record a transaction, all booked",
    "plain INSERT of one row, 1 connection",
    f"plain INSERT of one row, {CONNECTIONS} connections",
)
HOW_TO_READ = f"""\
- **{PATH}**: {CLIENTS} clients hold money for a request and record what it used, one request after the other. A
  record is acknowledged when the operating system has it, and the disk has it within 50 ms. This is what metering
  adds to a request before its end, the messages to billing included; its CPU is a bar.
- The bars are of the best round: what else runs on the machine only takes away. A round of holding and recording is
  {PART * SLICE} requests.
- **{LEDGER}** is the drainer, which works beside the requests in the same process: it reads the spool, prices each
  record, writes records and postings by COPY, and brings balances, roll-ups, spend, leases and drawn credits up to
  date, in transactions of {BillingSettings().drain_records} records. PostgreSQL waits for the disk at every commit.
- **{BOOKED}** is the same transaction with one record in it.
- **plain INSERT** writes the record alone: no price, no posting, no sum.
- CPU is user and system time, of the process that runs billing and of all of PostgreSQL's. `per core` is how many
  records a core would do that did nothing but this.
- The longest block is the longest that the drain kept the event loop, which serves requests meanwhile, from a timer of
  {1000 * TICK_S:g} ms, by the CPU time of its thread. In brackets: how late a timer was by the clock, at worst; other
  processes on the machine add to that.
- The load has {ORGANIZATIONS} organisations, five of which have credits, with three projects of four keys each and
  three models. A third of the records have cached tokens, 10 % are of batches, 5 % each flex and priority, 5 % call a
  tool: 2.6 postings each.
"""


class MeasureError(Exception):
    """What was measured is not what should have been."""


@dataclass(frozen=True)
class Measured:
    """One run of one way."""

    records: int
    elapsed_s: float
    cpu_s: float
    """Of the process that runs billing."""

    database_cpu_s: float
    block_ms: float = 0.0
    late_ms: float = 0.0

    @property
    def rate(self) -> float:
        return self.records / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / self.records

    @property
    def database_us(self) -> float:
        return 1e6 * self.database_cpu_s / self.records


def used(chance: random.Random, now_ms: int) -> Usage:
    """What a request of the load used."""
    organization = chance.randrange(ORGANIZATIONS)
    project = chance.randrange(3)
    usage = Usage(
        # As the gateway makes it: of the time and ten random bytes.
        request_id=f"req_{now_ms:012x}{chance.randbytes(10).hex()}",
        attribution=Attribution(
            organization_id=f"org-{organization}",
            project_id=f"proj_{organization}_{project}",
            key_id=f"key_{organization}_{project}_{chance.randrange(4)}",
        ),
        model=chance.choice(MODELS),
        service_tier=chance.choices(("default", "flex", "priority"), (90, 5, 5))[0],
        input_tokens=chance.randrange(50, 5000),
        output_tokens=chance.randrange(1, 1000),
        outcome=OUTCOME_COMPLETED,
        started_at_ms=now_ms - 2000,
        finished_at_ms=now_ms,
        operation="chat.completions",
        batch=chance.random() < 0.1,
    )
    if chance.random() < 1 / 3:
        usage.cached_input_tokens = usage.input_tokens // 2
    if chance.random() < 0.05:
        usage.tools.append(ToolUsage(tool="search", calls=1))
    return usage


def load(chance: random.Random, records: int) -> list[Usage]:
    now_ms = time.time_ns() // 1_000_000
    return [used(chance, now_ms) for _ in range(records)]


class Bench:
    """A database, and what is measured on it."""

    def __init__(self, folder: Path, server_pid: int, database: Database) -> None:
        self._folder = folder
        self._server_pid = server_pid
        self._database = database

    def _database_cpu_s(self) -> float:
        # Children that ended are counted in their parent.
        return sum(process.cpu_s for process in tree(self._server_pid).values())

    async def measure(self, records: int, work: Callable[[], Awaitable[object]]) -> Measured:
        before_s = self._database_cpu_s()
        cpu_s, started_s = time.process_time(), time.monotonic()
        await work()
        elapsed_s, cpu_s = time.monotonic() - started_s, time.process_time() - cpu_s
        return Measured(records, elapsed_s, cpu_s, self._database_cpu_s() - before_s)

    async def durable_path(self, chance: random.Random, records: int) -> tuple[list[Measured], Measured]:
        """Holds and records, in slices, then drains."""
        settings = BillingSettings(drain_interval_ms=NEVER_MS)
        async with serving(self._folder / "spool", self._database, settings) as billing:
            usages = load(random.Random(0), 2000)
            await hold_and_record(billing, usages, [known_before(usage) for usage in usages])
            await billing.drain()
            # As the platform does once it has started.
            gc.collect()
            gc.freeze()
            parts = []
            for _ in range(records // PART):
                # A gateway has just made the usage that it records: it is not to be fetched from memory.
                usages = load(chance, PART)
                known = [known_before(usage) for usage in usages]
                parts.append(await self.measure(PART, partial(hold_and_record, billing, usages, known)))
            path = [total(parts[start : start + SLICE]) for start in range(0, len(parts), SLICE)]
            await asyncio.sleep(SYNC_S)
            async with watched() as watch:
                drained = await self.measure(total(parts).records, billing.drain)
        return path, replace(drained, block_ms=1000 * watch.block_s, late_ms=1000 * watch.late_s)

    async def booked_one_by_one(self, usages: Sequence[Usage]) -> Measured:
        prices = Prices(PricesStore(self._database))
        store = UsageStore(self._database, prices.refresh)

        async def book() -> None:
            for usage in usages:
                await store.add(await store.prepare([usage]))

        return await self.measure(len(usages), book)

    async def inserted(self, usages: Sequence[Usage], connections: int) -> Measured:
        async def insert(part: Sequence[Usage]) -> None:
            async with self._database.connection() as connection:
                for usage in part:
                    await connection.execute(PLAIN, row(usage))
                    await connection.commit()

        async def all_parts() -> None:
            await asyncio.gather(*(insert(usages[number::connections]) for number in range(connections)))

        return await self.measure(len(usages), all_parts)

    async def verify(self, records: int) -> None:
        """Whether all that was drained is there. Raises MeasureError."""
        async with self._database.connection() as connection:
            row = await (await connection.execute(SUMS)).fetchone()
        assert row is not None
        found, requests, *sums, rest = row
        if {found, requests} != {records} or len(set(sums)) != 1 or rest:
            raise MeasureError(f"the ledger does not add up: {row} of {records} records")


def row(usage: Usage) -> tuple[object, ...]:
    who = usage.attribution
    return (
        usage.request_id,
        who.organization_id,
        who.project_id,
        who.key_id,
        who.user_id,
        usage.model,
        usage.service_tier,
        usage.operation,
        usage.outcome,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.started_at_ms,
        usage.finished_at_ms,
    )


def known_before(usage: Usage) -> Mapping[str, Any]:
    """What a gateway knows of a request when it asks for the money."""
    names = ("request_id", "attribution", "model", "service_tier", "batch", "input_tokens")
    return {name: getattr(usage, name) for name in names}


async def hold_and_record(billing: Billing, usages: Sequence[Usage], known: Sequence[Mapping[str, Any]]) -> None:
    """As a gateway does it for each request."""

    async def client(requests: Iterator[tuple[Usage, Mapping[str, Any]]]) -> None:
        for number, (usage, before) in enumerate(requests):
            await billing.hold(HoldRequest(expected_output_tokens=500, max_output_tokens=4000, **before))
            record = RecordRequest()
            record.usages.add().CopyFrom(usage)
            await billing.record(record)
            # Neither waits for anything; the clients take turns all the same.
            if number % TURN == 0:
                await asyncio.sleep(0)

    requests = iter(zip(usages, known, strict=True))
    await asyncio.gather(*(client(requests) for _ in range(CLIENTS)))


@dataclass
class Watch:
    """The worst that the event loop did to a timer."""

    late_s: float = 0.0
    block_s: float = 0.0
    """Of it, at most, the CPU time that the loop's own thread has used."""


@asynccontextmanager
async def watched() -> AsyncIterator[Watch]:
    watch = Watch()

    async def look() -> None:
        while True:
            due_s, cpu_s = time.monotonic() + TICK_S, time.thread_time()
            await asyncio.sleep(TICK_S)
            late_s = time.monotonic() - due_s
            watch.late_s = max(watch.late_s, late_s)
            watch.block_s = max(watch.block_s, min(late_s, time.thread_time() - cpu_s))

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def run(folder: Path, rounds: int, records: int, single: int) -> dict[str, list[Measured]]:
    server = EmbeddedServer(folder)
    results: dict[str, list[Measured]] = {name: [] for name in (PATH, LEDGER, BOOKED, ONE_ROW, ROWS)}
    chance = random.Random(1)
    try:
        await server.start()
        await asyncio.to_thread(upgrade, server.url)
        database = Database(server.url)
        await database.open()
        async with database.connection() as connection:
            await connection.execute(FURNISHING)
        pid = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        bench = Bench(folder, pid, database)
        for number in range(rounds):
            path, drained = await bench.durable_path(chance, records)
            results[PATH] += path
            results[LEDGER].append(drained)
            results[BOOKED].append(await bench.booked_one_by_one(load(chance, single)))
            await bench.verify((number + 1) * (drained.records + single + 2000))
            results[ONE_ROW].append(await bench.inserted(load(chance, single), 1))
            results[ROWS].append(await bench.inserted(load(chance, CONNECTIONS * single), CONNECTIONS))
            for name, runs in results.items():
                print(f"round {number + 1}: {name}: {runs[-1].rate:.0f}/s", file=sys.stderr)
        await database.close()
    finally:
        await server.stop()
    return results


def bars(results: dict[str, list[Measured]]) -> list[Bar]:
    """Of the best round: whatever else runs on the machine only takes away."""
    return [
        Bar("ledger_records_per_s", max(run.rate for run in results[LEDGER]), ">=", 20_000),
        Bar("ledger_gateway_cpu_us_per_request", min(run.cpu_us for run in results[PATH]), "<=", 20),
    ]


def total(runs: Sequence[Measured]) -> Measured:
    return Measured(
        sum(run.records for run in runs),
        sum(run.elapsed_s for run in runs),
        sum(run.cpu_s for run in runs),
        sum(run.database_cpu_s for run in runs),
        max(run.block_ms for run in runs),
        max(run.late_ms for run in runs),
    )


def page(results: dict[str, list[Measured]], took_s: float) -> str:
    """The Markdown page."""
    lines = ["# Usage into the ledger", "", f"Written by `make bench-ledger` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    lines += [
        "| way | records/s (rounds) | billing CPU us/record (rounds) | PostgreSQL CPU us/record | per core of billing |"
    ]
    lines[-1] += " per core of both | longest block ms | records |"
    lines += ["| --- " + "| ---: " * 7 + "|"]
    for name, runs in results.items():
        all_runs = total(runs)
        rates = [run.rate for run in runs]
        both = all_runs.cpu_us + all_runs.database_us
        costs = [run.cpu_us for run in runs]
        cells = [name, f"{all_runs.rate:.0f} ({min(rates):.0f}-{max(rates):.0f})"]
        cells += [f"{all_runs.cpu_us:.1f} ({min(costs):.1f}-{max(costs):.1f})"]
        cells += [f"{all_runs.database_us:.1f}", f"{1e6 / all_runs.cpu_us:.0f}", f"{1e6 / both:.0f}"]
        block = f"{all_runs.block_ms:.1f} ({all_runs.late_ms:.1f})" if all_runs.late_ms else "-"
        cells += [block, str(all_runs.records)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## How to read it", "", HOW_TO_READ, "## Measured on", "", machine()]
    rounds = len(results[LEDGER])
    lines += [f"- {rounds} rounds, {took_s:.0f} s in all; Python {platform.python_version()} on uvloop", ""]
    return "\n".join(lines)


def bench(rounds: int, records: int, single: int) -> int:
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as folder:
        results = uvloop.run(run(Path(folder), rounds, records, single))
    text = page(results, time.monotonic() - started_s)
    print(text)
    held = bars(results)
    for bar in held:
        print(bar)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text + "\n## Bars\n\n" + "".join(f"    {bar}\n" for bar in held))
    return 1 if any(bar.short for bar in held) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Usage made durable and brought into the ledger")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=100_000, help="in each round")
    parser.add_argument("--single", type=int, default=1000, help="records that are inserted one by one in each round")
    given = parser.parse_args()
    try:
        status = bench(given.rounds, given.records, given.single)
    except (StartError, MeasureError, Fault) as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; everything was stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
