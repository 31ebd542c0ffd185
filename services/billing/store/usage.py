"""Usage on its way into the ledger: a batch of records, what they cost and everything that adds up, in one transaction.

Kept true: the first record of a request id counts and every other one changes nothing; a record, its postings, the
balances, the month's sums and the roll-ups are there together or not at all. Who writes for an organisation holds its
lock, so two processes that bring the same records, as after a crash, take turns.

Records are copied straight into the table. Only when one of them is there already are those that are new picked out.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow

from modelplane.usage.v1 import usage_pb2
from modelplane.usage.v1.usage_pb2 import Usage
from services.pricing.book import Book
from services.pricing.cost import Line, Unpriced, lines
from services.storage import Database
from services.storage.postings import RECEIVABLE, draw_credits, lock_funds
from services.storage.rollups import TOOL_HOURS, USAGE_HOURS

# Rows between two turns of the event loop: requests are served beside the draining.
PAUSE_ROWS: Final = 50
# Rows in one piece of a COPY, and in one statement that adds to sums.
WRITE_ROWS: Final = 500
FREED_ROWS: Final = 500
SUMS: Final = 500
HOUR_MS: Final = 3_600_000
FIRST: Final = itemgetter(0)
# In COPY's text format.
NULL: Final = "\\N"

Connection: TypeAlias = AsyncConnection[TupleRow]
ReadBook: TypeAlias = Callable[[Connection], Awaitable[Book]]
Told: TypeAlias = Callable[[Connection, "Sequence[Cost]"], Awaitable[None]]

COLUMNS: Final = (
    "request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, image_size, "
    "image_quality, outcome, batch, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, "
    "finished_at_ms, price_id, nanodollars, tools, cache_write_tokens, input_image_tokens, input_audio_tokens, "
    "output_audio_tokens, output_image_tokens, images, audio_ms, characters, stored_byte_seconds"
)
# What most records have of the columns from `tools` on.
PLAIN: Final = "\\N" + 9 * "\t0"
_COPY_USAGE: Final = f"COPY usage_records ({COLUMNS}) FROM STDIN"
_COPY_POSTINGS: Final = """
COPY postings (
    transaction_id, line, organization_id, project_id, key_id, model, debit, credit, nanodollars, quantity,
    occurred_at_ms
) FROM STDIN
"""
_KNOWN: Final = "SELECT request_id FROM usage_records WHERE request_id = ANY(%s)"
_BALANCES: Final = """
INSERT INTO balances (organization_id, account, nanodollars)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[]) ORDER BY 1, 2
ON CONFLICT (organization_id, account) DO UPDATE SET nanodollars = balances.nanodollars + excluded.nanodollars
"""
_SPEND: Final = """
INSERT INTO spend (organization_id, project_id, month, nanodollars)
SELECT * FROM unnest(%s::text[], %s::text[], %s::date[], %s::bigint[]) ORDER BY 1, 2, 3
ON CONFLICT (organization_id, project_id, month) DO UPDATE SET nanodollars = spend.nanodollars + excluded.nanodollars
"""
_COST_HOURS: Final = """
INSERT INTO cost_hours (organization_id, hour, project_id, key_id, model, line, quantity, nanodollars)
SELECT organization_id, to_timestamp(hour), project_id, key_id, model, line, quantity, nanodollars
FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
    AS costs (organization_id, hour, project_id, key_id, model, line, quantity, nanodollars)
ORDER BY 1, 2, 3, 4, 5, 6
ON CONFLICT (organization_id, hour, project_id, key_id, model, line) DO UPDATE SET
    quantity = cost_hours.quantity + excluded.quantity, nanodollars = cost_hours.nanodollars + excluded.nanodollars
"""
_WITH_CREDITS: Final = "SELECT DISTINCT organization_id FROM credits WHERE organization_id = ANY(%s) AND remaining > 0"
_SELECT: Final = f"SELECT {COLUMNS} FROM usage_records WHERE request_id = %s AND organization_id = %s"  # noqa: S608


class RecordRefusedError(Exception):
    """The database will never take (one of) these records."""


class Cost(NamedTuple):
    """What the records of one project in a batch cost together."""

    organization_id: str
    project_id: str
    nanodollars: int


class Drained(NamedTuple):
    """What became of a batch."""

    added: int
    """Records that were new."""

    unpriced: Sequence[str]
    """The models among them that had no price."""

    costs: Sequence[Cost]


class UsageStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached. `read_book` gives the price
    book as a transaction sees it."""

    def __init__(self, database: Database, read_book: ReadBook) -> None:
        self._database = database
        self._read_book = read_book
        self._book = Book(())

    async def prepare(self, usages: Sequence[Usage]) -> "Batch":
        """Prices records, which `add` then books; the one can be done while the other waits for the database."""
        return await _priced(usages, self._book)

    async def add(self, batch: "Batch", told: Told | None = None) -> Drained:
        """Books all records in one transaction; `told` is called within it with what they cost, the known
        ones too. Raises RecordRefusedError."""
        try:
            async with self._database.connection() as connection:
                drained = await self._add(connection, batch, told)
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeEncodeError) as error:
            raise RecordRefusedError(str(error)) from error
        # Let go by and by: to free ten thousand at once takes as many microseconds.
        while batch.usages:
            del batch.usages[-FREED_ROWS:]
            await asyncio.sleep(0)
        return drained

    async def _add(self, connection: Connection, batch: "Batch", told: Told | None) -> Drained:
        await lock_funds(connection, batch.organizations)
        self._book = await self._read_book(connection)
        if batch.book is not self._book:
            batch = await _priced(batch.usages, self._book)
        # Of all, also those that turn out to be known: each was settled once where it was recorded, and a transaction
        # whose commit was not heard of comes a second time.
        costs = batch.costs()
        if told is not None:
            await told(connection, costs)
        cursor = connection.cursor()
        try:
            async with connection.transaction():
                await _copy(cursor, _COPY_USAGE, batch.rows)
        except psycopg.errors.UniqueViolation:
            batch = await _priced(await _new(cursor, batch.usages), batch.book)
            await _copy(cursor, _COPY_USAGE, batch.rows)
        if not batch.rows:
            return Drained(0, (), costs)
        await _copy(cursor, _COPY_POSTINGS, batch.postings)
        await _add_up(cursor, batch)
        await _draw(connection, batch)
        return Drained(len(batch.rows), tuple(batch.unpriced), costs)

    async def get(self, organization_id: str, request_id: str) -> tuple[Usage, int] | None:
        """A record and what it cost."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_SELECT.encode(), (request_id, organization_id))
            row = await cursor.fetchone()
        return _usage(row) if row else None


_Place: TypeAlias = tuple[str, int, str, str, str]
"""Organisation, hour (in hours since 1970), project, key and model: what is added up together."""
_Texts: TypeAlias = tuple[str, ...]
"""Request, organisation, project, key, user, model and more, as the columns have them."""


class Batch:
    """Records as they are written, and what they add up to."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.usages: list[Usage] = []
        self.organizations: set[str] = set()
        self.rows: list[str] = []
        self.postings: list[str] = []
        self.unpriced: set[str] = set()
        self.uses_tools = False
        # The last record of each organisation that has cost something: its id, and when it ended.
        self.last: dict[str, tuple[str, int]] = {}
        # By line: quantity and amount.
        self._sums: defaultdict[_Place, dict[str, list[int]]] = defaultdict(dict)

    def add(self, usage: Usage) -> None:
        """Prices a record."""
        price = self.book.price(usage.model, usage.started_at_ms)
        found: Sequence[Line] = ()
        if price is not None:
            try:
                found = lines(usage, price)
            except Unpriced:
                price = None
        if price is None:
            self.unpriced.add(usage.model)
        self.usages.append(usage)
        texts = _texts(usage)
        self.organizations.add(texts[1])
        row = _joined(texts)
        total = self._post(texts, row, usage.finished_at_ms, found) if found else 0
        if usage.tools:
            self.uses_tools = True
        self.rows.append(f"{row}\t{_numbers(usage, None if price is None else price.id, total)}\n")

    def _post(self, texts: _Texts, row: str, at_ms: int, found: Sequence[Line]) -> int:
        """Books the lines of a record; gives their sum. `row` is the texts, escaped."""
        request_id, organization_id, project_id, key_id, _, model, *_ = texts
        self.last[organization_id] = request_id, at_ms
        sums = self._sums[organization_id, at_ms // HOUR_MS, project_id, key_id, model]
        name, organization, project, key, _, of_model, *_ = row.split("\t")
        place = f"{organization}\t{project}\t{key}\t{of_model}"
        total = 0
        for line, quantity, amount in found:
            total += amount
            if (of_line := sums.get(line)) is None:
                sums[line] = [quantity, amount]
            else:
                of_line[0] += quantity
                of_line[1] += amount
            if amount > 0:
                moved = f"{RECEIVABLE}\t{_account(line)}\t{amount}"
            else:
                moved = f"{_account(line)}\t{RECEIVABLE}\t{-amount}"
            self.postings.append(f"{name}\t{line}\t{place}\t{moved}\t{quantity}\t{at_ms}\n")
        return total

    def hours(self) -> list[tuple[str, int, str, str, str, str, int, int]]:
        """Rows of `cost_hours` in the order of their keys, the hour in Unix seconds."""
        return [
            (organization_id, hour * 3600, project_id, key_id, model, line, quantity, amount)
            for (organization_id, hour, project_id, key_id, model), sums in sorted(self._sums.items(), key=FIRST)
            for line, (quantity, amount) in sorted(sums.items())
        ]

    def costs(self) -> list[Cost]:
        totals: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (organization_id, _, project_id, *_), sums in self._sums.items():
            totals[organization_id, project_id] += _total(sums)
        return [Cost(*place, nanodollars) for place, nanodollars in totals.items()]

    def balances(self) -> dict[tuple[str, str], int]:
        """Changes by organisation and account, debits above 0."""
        changes: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (organization_id, *_), sums in self._sums.items():
            for line, (_, amount) in sums.items():
                changes[organization_id, RECEIVABLE] += amount
                changes[organization_id, _account(line)] -= amount
        return changes

    def spend(self) -> dict[tuple[str, str, date], int]:
        """By organisation, project ("" for the organisation itself) and month."""
        by_hour: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        for (organization_id, hour, project_id, *_), sums in self._sums.items():
            for name in {"", project_id}:
                by_hour[organization_id, name, hour] += _total(sums)
        totals: defaultdict[tuple[str, str, date], int] = defaultdict(int)
        for (organization_id, name, hour), nanodollars in by_hour.items():
            month = datetime.fromtimestamp(hour * 3600, UTC).date().replace(day=1)
            totals[organization_id, name, month] += nanodollars
        return totals


def _total(sums: dict[str, list[int]]) -> int:
    return sum([amount for _, amount in sums.values()])


def _account(line: str) -> str:
    """The other side of what is owed."""
    return "discounts" if line == "discount" else f"revenue:{line}"


async def _priced(usages: Sequence[Usage], book: Book) -> Batch:
    batch = Batch(book)
    for start in range(0, len(usages), PAUSE_ROWS):
        for usage in usages[start : start + PAUSE_ROWS]:
            batch.add(usage)
        await asyncio.sleep(0)
    return batch


async def _new(cursor: AsyncCursor[TupleRow], usages: Sequence[Usage]) -> list[Usage]:
    """The first record of each request that the ledger does not have."""
    found = {usage.request_id: usage for usage in reversed(usages)}
    await cursor.execute(_KNOWN, (list(found),))
    for (request_id,) in await cursor.fetchall():
        del found[request_id]
    return list(found.values())


async def _copy(cursor: AsyncCursor[TupleRow], statement: str, rows: Sequence[str]) -> None:
    async with cursor.copy(statement.encode()) as copy:
        for start in range(0, len(rows), WRITE_ROWS):
            await copy.write("".join(rows[start : start + WRITE_ROWS]))
            await asyncio.sleep(0)


async def _add_up(cursor: AsyncCursor[TupleRow], batch: Batch) -> None:
    """Brings every sum up to date. The new records are those of this transaction."""
    which = "transaction_xid = pg_current_xact_id()"
    await cursor.execute(USAGE_HOURS.format(which=which).encode())
    if batch.uses_tools:
        await cursor.execute(TOOL_HOURS.format(which=which).encode())
    if not batch.postings:
        return
    await cursor.execute(_BALANCES, _columns([(*place, change) for place, change in batch.balances().items()]))
    await cursor.execute(_SPEND, _columns([(*place, amount) for place, amount in batch.spend().items()]))
    hours = batch.hours()
    for start in range(0, len(hours), SUMS):
        await cursor.execute(_COST_HOURS, _columns(hours[start : start + SUMS]))


async def _draw(connection: Connection, batch: Batch) -> None:
    """Covers what was used by credits, for the organisations that have any."""
    cursor = await connection.execute(_WITH_CREDITS, (list(batch.last),))
    for (organization_id,) in await cursor.fetchall():
        # A record is booked once, so a draw that is named after one is made once.
        await draw_credits(connection, organization_id, *batch.last[organization_id])


def _columns(rows: Sequence[tuple[object, ...]]) -> list[str]:
    """Rows as arrays of columns, in PostgreSQL's text format: psycopg takes ten times as long to write one."""
    return [_array([str(value) for value in column]) for column in zip(*rows, strict=True)]


def _array(values: Sequence[str]) -> str:
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        joined = '","'.join([value.replace("\\", "\\\\").replace('"', '\\"') for value in values])
    return f'{{"{joined}"}}'


def _texts(usage: Usage) -> _Texts:
    """The first columns of a row."""
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
        usage.image_size,
        usage.image_quality,
    )


def _numbers(usage: Usage, price_id: int | None, nanodollars: int) -> str:
    """The columns after the texts."""
    return (
        f"{usage.outcome}\t{'t' if usage.batch else 'f'}\t{usage.input_tokens}\t{usage.cached_input_tokens}\t"
        f"{usage.output_tokens}\t{usage.reasoning_tokens}\t{usage.started_at_ms}\t{usage.finished_at_ms}\t"
        f"{NULL if price_id is None else price_id}\t{nanodollars}\t{_rare(usage)}"
    )


def _rare(usage: Usage) -> str:
    """The columns from `tools` on."""
    counts = (
        usage.cache_write_tokens,
        usage.input_image_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.output_image_tokens,
        usage.images,
        usage.audio_ms,
        usage.characters,
        usage.stored_byte_seconds,
    )
    used = usage.tools
    if not used and not any(counts):
        return PLAIN
    tools = NULL
    if used:
        calls: defaultdict[str, int] = defaultdict(int)
        for one in used:
            calls[one.tool] += one.calls
        tools = _escape(msgspec.json.encode(calls).decode())
    return "\t".join([tools, *map(str, counts)])


def _joined(texts: _Texts) -> str:
    """In COPY's text format."""
    joined = "\t".join(texts)
    # Ids and names hold none of these; looking at each of them for it would cost as much as everything else.
    if "\\" in joined or "\n" in joined or "\r" in joined or joined.count("\t") >= len(texts):
        return "\t".join([_escape(text) for text in texts])
    return joined


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _usage(row: tuple[Any, ...]) -> tuple[Usage, int]:
    """The record of a row as `_row` writes it."""
    names = [name.strip() for name in COLUMNS.split(",")]
    values = dict(zip(names, row, strict=True))
    nanodollars: int = values.pop("nanodollars")
    del values["price_id"]
    who = {name: values.pop(name) for name in ("organization_id", "project_id", "key_id", "user_id")}
    tools = values.pop("tools") or {}
    usage = Usage(attribution=usage_pb2.Attribution(**who), **values)
    for tool, calls in tools.items():
        usage.tools.add(tool=tool, calls=calls)
    return usage, nanodollars
