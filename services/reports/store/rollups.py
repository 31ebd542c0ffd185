"""Makes roll-ups anew from what they are made of, by the statements of `services.storage.rollups`.

Kept true: whoever adds to the roll-ups of an organisation holds its lock, and so does this, so that what is added
beside it is either among the records that are read here or added afterwards. It goes in steps that are short enough for
who waits for the lock.
"""

from collections.abc import Sequence
from typing import Final, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from services.reports.periods import HOUR_S, Span
from services.reports.store.owners import owners
from services.storage import Database
from services.storage.postings import lock_funds
from services.storage.rollups import COST_HOURS, TOOL_HOURS, USAGE_HOURS

# Records in a step: less than a second's work.
STEP_RECORDS: Final = 20_000
_TABLES: Final[Sequence[LiteralString]] = ("usage_hours", "tool_hours", "cost_hours")
_FINISHED: LiteralString = (
    "organization_id = %(organization)s AND finished_at_ms >= %(since_s)s * 1000::bigint "
    "AND finished_at_ms < %(until_s)s * 1000::bigint"
)
_BOOKED: LiteralString = (
    f"line <> 'refund' AND transaction_id IN (SELECT request_id FROM usage_records WHERE {_FINISHED})"  # noqa: S608
)
# Refunds have a time of their own, and are found by their credits.
_REFUNDED: LiteralString = """
line = 'refund' AND occurred_at_ms >= %(since_s)s * 1000::bigint AND occurred_at_ms < %(until_s)s * 1000::bigint
AND transaction_id IN (
    SELECT substr(id, 8) FROM credits WHERE organization_id = %(organization)s AND starts_with(id, 'refund_')
)
"""
_BEYOND: LiteralString = f"""
SELECT finished_at_ms / 1000 FROM usage_records WHERE {_FINISHED} ORDER BY finished_at_ms OFFSET %(most)s LIMIT 1
"""  # noqa: S608
_DELETE: Final = (
    "DELETE FROM {} WHERE organization_id = %(organization)s "
    "AND hour >= to_timestamp(%(since_s)s) AND hour < to_timestamp(%(until_s)s)"
)
_COUNT: LiteralString = f"SELECT count(*) FROM usage_records WHERE {_FINISHED}"  # noqa: S608


class Step(NamedTuple):
    """How many records a step was made of, and where the next one begins."""

    records: int
    next_s: int


class RollupsStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def organizations(self) -> Sequence[str]:
        """All that have records or roll-ups, sorted."""
        async with self._database.connection() as connection:
            return await owners(connection, ["usage_records", *_TABLES])

    async def rebuild(self, organization_id: str, hours: Span) -> Step:
        """Makes the roll-ups of the first of these hours anew: of as many as have a step's records, of one at
        least."""
        values = {"organization": organization_id, **hours._asdict(), "most": STEP_RECORDS}
        async with self._database.connection() as connection:
            await lock_funds(connection, [organization_id])
            beyond = await (await connection.execute(_BEYOND, values)).fetchone()
            if beyond:
                values["until_s"] = min(hours.until_s, max(beyond[0] // HOUR_S, hours.since_s // HOUR_S + 1) * HOUR_S)
            records = await _rebuild(connection, values)
        return Step(records, int(values["until_s"]))


async def _rebuild(connection: AsyncConnection[TupleRow], values: dict[str, object]) -> int:
    for table in _TABLES:
        await connection.execute(sql.SQL(_DELETE).format(sql.Identifier(table)), values)
    for statement, which in (
        (USAGE_HOURS, _FINISHED),
        (TOOL_HOURS, _FINISHED),
        (COST_HOURS, _BOOKED),
        (COST_HOURS, _REFUNDED),
    ):
        await connection.execute(sql.SQL(statement).format(which=sql.SQL(which)), values)
    counted = await (await connection.execute(_COUNT, values)).fetchone()
    return int(counted[0]) if counted else 0
