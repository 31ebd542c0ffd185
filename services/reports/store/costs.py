"""Sums of what usage cost: from the roll-ups by the hour, and from the postings where an hour is not whole."""

from collections.abc import Mapping
from typing import Final

from psycopg import sql

from services.reports.store.sums import (
    Question,
    Sum,
    add_up,
    hour_bucket,
    instant_bucket,
    of_filters,
    of_hours,
    of_instants,
)
from services.storage import Database

_COLUMNS: Final[Mapping[str, sql.Composable]] = {
    "project_id": sql.SQL("project_id"),
    "api_key_id": sql.SQL("key_id"),
    "model": sql.SQL("model"),
    "line": sql.SQL("line"),
}
_FINISHED: Final = sql.SQL("finished_at_ms")
_OCCURRED: Final = sql.SQL("occurred_at_ms")
_HOURS: Final = sql.SQL("""
SELECT {bucket} AS bucket, project_id, key_id, model, line, quantity, nanodollars FROM cost_hours
WHERE organization_id = %(organization)s AND {when}
""")
# Postings of usage have the time of their record, whose index finds them; a refund is found by its credit.
_EDGES: Final = sql.SQL("""
SELECT {bucket} AS bucket, project_id, key_id, model, line, quantity,
    CASE WHEN debit = 'receivable' THEN nanodollars ELSE -nanodollars END AS nanodollars
FROM (
    SELECT postings.* FROM usage_records
    JOIN postings ON transaction_id = request_id AND line <> 'refund'
    WHERE usage_records.organization_id = %(organization)s AND {finished}
    UNION ALL
    SELECT postings.* FROM credits
    JOIN postings ON transaction_id = substr(credits.id, 8) AND line = 'refund'
    WHERE credits.organization_id = %(organization)s AND starts_with(credits.id, 'refund_') AND {occurred}
) AS booked
""")


class CostsStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached, or takes too long."""

    def __init__(self, database: Database, statement_timeout_s: float) -> None:
        self._database = database
        self._statement_timeout_s = statement_timeout_s

    async def costs(self, question: Question) -> list[Sum]:
        """In `nanodollars`, and `quantity` in the units of the lines."""
        conditions, values = of_filters(question, _COLUMNS)
        sources: list[sql.Composable] = []
        if question.hours:
            sources.append(_HOURS.format(bucket=hour_bucket(question.bucket_s), when=of_hours(question.hours)))
        if question.edges:
            sources.append(
                _EDGES.format(
                    bucket=instant_bucket(_OCCURRED, question.bucket_s),
                    finished=of_instants(_FINISHED, question.edges),
                    occurred=of_instants(_OCCURRED, question.edges),
                )
            )
        rows = [
            sql.SQL("SELECT * FROM ({}) AS rows WHERE {}").format(
                source, sql.SQL(" AND ").join([sql.SQL("true"), *conditions])
            )
            for source in sources
        ]
        async with self._database.connection(statement_timeout_s=self._statement_timeout_s) as connection:
            organization = {"organization": question.organization_id}
            return await add_up(connection, question, _COLUMNS, rows, {**values, **organization})
