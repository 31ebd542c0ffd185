"""Sums of usage: from the roll-ups by the hour, and from the records where an hour is not whole."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

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
    "user_id": sql.SQL("user_id"),
    "api_key_id": sql.SQL("key_id"),
    "model": sql.SQL("model"),
    "batch": sql.SQL("batch"),
    "service_tier": sql.SQL("service_tier"),
    "size": sql.SQL("image_size"),
    "operation": sql.SQL("operation"),
}
_FINISHED: Final = sql.SQL("finished_at_ms")
_STORED: Final = "stored_byte_seconds"


class UsageStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached, or takes too long."""

    def __init__(self, database: Database, statement_timeout_s: float) -> None:
        self._database = database
        self._statement_timeout_s = statement_timeout_s

    async def requests(self, question: Question) -> list[Sum]:
        """Of requests: their number and what they used."""
        conditions, values = _conditions(question)
        if tuple(question.measures) == (_STORED,):
            # Few requests store anything.
            conditions.append(sql.SQL("stored_byte_seconds > 0"))
        sources = []
        if question.hours:
            where = [*conditions, of_hours(question.hours)]
            sources.append(_rows(question, sql.SQL("usage_hours"), hour_bucket(question.bucket_s), where, {}))
        if question.edges:
            where = [*conditions, of_instants(_FINISHED, question.edges)]
            bucket = instant_bucket(_FINISHED, question.bucket_s)
            sources.append(_rows(question, sql.SQL("usage_records"), bucket, where, {"requests": sql.SQL("1")}))
        return await self._sums(question, sources, values)

    async def calls(self, question: Question, tool: str) -> list[Sum]:
        """Of calls of a tool: `tool_calls`, and in `requests` how many requests called it."""
        conditions, values = _conditions(question)
        values["tool"] = tool
        sources = []
        if question.hours:
            where = [*conditions, sql.SQL("tool = %(tool)s"), of_hours(question.hours)]
            counted = {"tool_calls": sql.SQL("calls")}
            sources.append(_rows(question, sql.SQL("tool_hours"), hour_bucket(question.bucket_s), where, counted))
        if question.edges:
            where = [*conditions, sql.SQL("tools ->> %(tool)s IS NOT NULL"), of_instants(_FINISHED, question.edges)]
            bucket = instant_bucket(_FINISHED, question.bucket_s)
            counted = {"requests": sql.SQL("1"), "tool_calls": sql.SQL("(tools ->> %(tool)s)::bigint")}
            sources.append(_rows(question, sql.SQL("usage_records"), bucket, where, counted))
        return await self._sums(question, sources, values)

    async def _sums(
        self, question: Question, sources: Sequence[sql.Composable], values: Mapping[str, Any]
    ) -> list[Sum]:
        async with self._database.connection(statement_timeout_s=self._statement_timeout_s) as connection:
            return await add_up(connection, question, _COLUMNS, sources, values)


def _conditions(question: Question) -> tuple[list[sql.Composable], dict[str, Any]]:
    conditions, values = of_filters(question, _COLUMNS)
    own = sql.SQL("organization_id = %(organization)s")
    return [own, *conditions], {**values, "organization": question.organization_id}


def _rows(
    question: Question,
    table: sql.SQL,
    bucket: sql.Composable,
    where: Sequence[sql.Composable],
    counted: Mapping[str, sql.Composable],
) -> sql.Composed:
    """What `counted` does not say of a measure is a column of its name."""
    columns = [_COLUMNS[name] for name in question.groups]
    measures = [
        sql.SQL("{} AS {}").format(counted.get(name, sql.Identifier(name)), sql.Identifier(name))
        for name in question.measures
    ]
    return sql.SQL("SELECT {bucket} AS bucket, {columns} FROM {table} WHERE {where}").format(
        bucket=bucket,
        columns=sql.SQL(", ").join([*columns, *measures]),
        table=table,
        where=sql.SQL(" AND ").join(where),
    )
