"""The usage ledger in PostgreSQL: one row per request id, whoever sends it and however often."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg

from modelplane.usage.v1 import usage_pb2
from services.storage import Database

# Rows between two turns of the event loop: requests are served beside the draining.
PAUSE_ROWS = 50

# One per connection, so that batches do not grow the system catalogue.
_INCOMING = """
CREATE TEMP TABLE IF NOT EXISTS usage_incoming (LIKE usage_records INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
"""
_COPY = """
COPY usage_incoming (
    request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, outcome,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms
) FROM STDIN
"""
# Sorted, so that two processes that bring the same records cannot deadlock.
_INSERT = """
INSERT INTO usage_records SELECT * FROM usage_incoming ORDER BY request_id
ON CONFLICT (request_id) DO NOTHING
"""
_SELECT = """
SELECT request_id, organization_id, project_id, key_id, user_id, model, service_tier, operation, outcome,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms
FROM usage_records WHERE request_id = %s AND organization_id = %s
"""


class RecordRefusedError(Exception):
    """The database will never take (one of) these records."""


class UsageStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, usages: Sequence[usage_pb2.Usage]) -> int:
        """Adds all records in one transaction and returns how many were new. Raises RecordRefusedError."""
        try:
            async with self._database.connection() as connection, connection.cursor() as cursor:
                await cursor.execute(_INCOMING)
                async with cursor.copy(_COPY) as copy:
                    for index, usage in enumerate(usages):
                        await copy.write_row(_row(usage))
                        if index % PAUSE_ROWS == 0:
                            await asyncio.sleep(0)
                await cursor.execute(_INSERT)
                return cursor.rowcount
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise RecordRefusedError(str(error)) from error

    async def get(self, organization_id: str, request_id: str) -> usage_pb2.Usage | None:
        async with self._database.connection() as connection:
            cursor = await connection.execute(_SELECT, (request_id, organization_id))
            row = await cursor.fetchone()
        return _usage(row) if row else None


def _row(usage: usage_pb2.Usage) -> tuple[str | int, ...]:
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


def _usage(row: tuple[Any, ...]) -> usage_pb2.Usage:
    """The record of a row as `_row` makes it."""
    request_id, organization_id, project_id, key_id, user_id, *rest = row
    model, service_tier, operation, outcome, *numbers = rest
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, started_at_ms, finished_at_ms = numbers
    return usage_pb2.Usage(
        request_id=request_id,
        attribution=usage_pb2.Attribution(
            organization_id=organization_id, project_id=project_id, key_id=key_id, user_id=user_id
        ),
        model=model,
        service_tier=service_tier,
        operation=operation,
        outcome=outcome,
        input_tokens=input_tokens,
        cached_input_tokens=cached_input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning_tokens,
        started_at_ms=started_at_ms,
        finished_at_ms=finished_at_ms,
    )
