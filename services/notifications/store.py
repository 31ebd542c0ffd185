"""The queries of the service `notifications`: what is to be told, and what was.

Kept true: what was told is written down after it was told, so a crash between the two tells it again and never loses
it; of two processes one tells. The locks are advisory, because a lock on a row would make the transaction a writer,
whose delivery other readers of new usage would have to wait for.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, dict_row

from services.storage import Database

EVENTS: Final = "events"
EMAIL: Final = "email"
WEBHOOK: Final = "webhook"

# Numbers of advisory locks are shared by the whole database.
_LOCK_ALERT = "SELECT pg_try_advisory_xact_lock(1634493812, hashtext(%s))"
_LOCK_EVENTS = "SELECT pg_try_advisory_xact_lock(1634493813, 0)"

# A month's last usage reaches the ledger when the next month has begun. An alert that was made after a month is not
# about it.
_DUE: LiteralString = """
SELECT alert.id, channel, alert.organization_id, alert.project_id, organization.name, coalesce(project.name, ''),
    threshold_cents, email_recipients, subject_prefix, webhook_url, spend.month, spend.nanodollars
FROM spend_alerts AS alert
JOIN spend USING (organization_id, project_id)
JOIN organizations AS organization ON organization.id = alert.organization_id
LEFT JOIN projects AS project ON project.id = alert.project_id
CROSS JOIN unnest(%(channels)s::text[]) AS channel
WHERE spend.month >= date_trunc('month', now() AT TIME ZONE 'UTC' - interval '1 hour')
    AND alert.created_at < (spend.month + interval '1 month') AT TIME ZONE 'UTC'
    AND spend.nanodollars > 0 AND spend.nanodollars >= threshold_cents * 10000000::numeric
    AND CASE channel WHEN 'email' THEN email_recipients <> '{}' ELSE webhook_url <> '' END
    AND NOT EXISTS (
        SELECT FROM spend_alerts_sent AS sent
        WHERE sent.alert_id = alert.id AND sent.month = spend.month AND sent.channel = channel.channel
    )
"""
_SENT = """
INSERT INTO spend_alerts_sent (alert_id, month, channel) SELECT id, %s, %s FROM spend_alerts WHERE id = %s
ON CONFLICT DO NOTHING
"""

_CURSOR = "SELECT transaction_xid::text, seq FROM cursors WHERE name = %s"
# A transaction that is still running may add rows in the midst of what is above the oldest one: they wait for it.
_USAGE: LiteralString = """
SELECT request_id, organization_id, project_id, key_id, user_id, model, service_tier, batch, operation, outcome,
    input_tokens, cached_input_tokens, cache_write_tokens, input_image_tokens, input_audio_tokens, output_tokens,
    reasoning_tokens, output_audio_tokens, output_image_tokens, images, image_size, image_quality, audio_ms, characters,
    tools, stored_byte_seconds, started_at_ms, finished_at_ms, price_id, nanodollars, transaction_xid::text, seq
FROM usage_records
WHERE (transaction_xid, seq) > (%s::xid8, %s) AND transaction_xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY usage_records.transaction_xid, seq LIMIT %s
"""
_LINES = """
SELECT transaction_id, line, quantity, CASE WHEN debit = 'receivable' THEN nanodollars ELSE -nanodollars END
FROM postings WHERE transaction_id = ANY(%s) AND debit <> 'refunds' ORDER BY transaction_id, line
"""
_ADVANCE = """
INSERT INTO cursors (name, transaction_xid, seq) VALUES (%s, %s::xid8, %s)
ON CONFLICT (name) DO UPDATE SET transaction_xid = excluded.transaction_xid, seq = excluded.seq
"""


class Due(NamedTuple):
    """An alert to be sent in a channel."""

    alert_id: str
    channel: str
    organization_id: str
    project_id: str
    organization_name: str
    project_name: str
    threshold_cents: int
    email_recipients: Sequence[str]
    subject_prefix: str
    webhook_url: str
    month: date
    nanodollars: int


class Position(NamedTuple):
    """How far a reader has come. Transaction ids are kept as text: they have 64 bits without a sign."""

    transaction_xid: str = "0"
    seq: int = 0


class Line(NamedTuple):
    """A part of what a record cost."""

    name: str
    quantity: int
    nanodollars: int


class Batch(NamedTuple):
    """Records after a position, by the names of their columns, and the position after them."""

    records: Sequence[Mapping[str, Any]]
    lines: Mapping[str, Sequence[Line]]
    end: Position


class NotificationsStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, channels: Sequence[str]) -> list[Due]:
        """Every alert that is due in one of these channels."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(_DUE, {"channels": list(channels)})
            return [Due(*row) for row in await cursor.fetchall()]

    @asynccontextmanager
    async def sending(self, due: Due) -> AsyncIterator[Due | None]:
        """The alert as it is now, which nobody else sends meanwhile and which is sent when the block ends well. None
        when somebody else sends it, or it is not due any more."""
        async with self._database.connection() as connection:
            if not await _locked(connection, _LOCK_ALERT, f"{due.alert_id} {due.channel}"):
                yield None
                return
            one: LiteralString = f"{_DUE} AND alert.id = %(id)s AND spend.month = %(month)s"
            values = {"channels": [due.channel], "id": due.alert_id, "month": due.month}
            row = await (await connection.execute(one, values)).fetchone()
            if row is None:
                yield None
                return
            yield Due(*row)
            await connection.execute(_SENT, (due.month, due.channel, due.alert_id))

    @asynccontextmanager
    async def sending_events(self, most: int) -> AsyncIterator[Batch | None]:
        """The next records, which nobody else sends meanwhile and which are sent when the block ends well. None when
        somebody else sends."""
        async with self._database.connection() as connection:
            if not await _locked(connection, _LOCK_EVENTS):
                yield None
                return
            row = await (await connection.execute(_CURSOR, (EVENTS,))).fetchone()
            start = Position(*row) if row else Position()
            batch = await _batch(connection, start, most)
            yield batch
            if batch.end != start:
                await connection.execute(_ADVANCE, (EVENTS, *batch.end))


async def _locked(connection: AsyncConnection[TupleRow], statement: LiteralString, *values: object) -> bool:
    row = await (await connection.execute(statement, values)).fetchone()
    return row is not None and bool(row[0])


async def _batch(connection: AsyncConnection[TupleRow], start: Position, most: int) -> Batch:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(_USAGE, (*start, most))
    records = await cursor.fetchall()
    if not records:
        return Batch((), {}, start)
    ids = [record["request_id"] for record in records]
    lines: dict[str, list[Line]] = {}
    found = await connection.execute(_LINES, (ids,))
    for request_id, *line in await found.fetchall():
        lines.setdefault(request_id, []).append(Line(*line))
    ends = [Position(record.pop("transaction_xid"), record.pop("seq")) for record in records]
    return Batch(records, lines, ends[-1])
