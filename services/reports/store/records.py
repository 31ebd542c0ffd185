"""Usage records, a page at a time, each in a transaction of its own: an export holds up nobody, however long it is."""

from collections.abc import Sequence
from typing import Final, LiteralString, NamedTuple

from psycopg.rows import TupleRow

from modelplane.reports.v1.reports_pb2 import PricedUsage
from modelplane.usage.v1.usage_pb2 import Attribution, ToolUsage, Usage
from services.reports.periods import Span
from services.reports.store.owners import owners
from services.storage import Database

_PLAIN: Final[Sequence[LiteralString]] = (
    "request_id",
    "model",
    "service_tier",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "outcome",
    "started_at_ms",
    "finished_at_ms",
    "operation",
    "input_image_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "images",
    "image_size",
    "image_quality",
    "audio_ms",
    "characters",
    "stored_byte_seconds",
    "batch",
)
_WHO: Final[Sequence[LiteralString]] = ("organization_id", "project_id", "key_id", "user_id")
_SELECT: Final[LiteralString] = f"""
SELECT tools, price_id, nanodollars, {", ".join(_WHO)}, {", ".join(_PLAIN)} FROM usage_records
WHERE organization_id = %s AND finished_at_ms >= %s AND (finished_at_ms, request_id) > (%s, %s) AND finished_at_ms < %s
ORDER BY finished_at_ms, request_id LIMIT %s
"""  # noqa: S608


class Place(NamedTuple):
    """After which record of an organisation a page begins."""

    finished_at_ms: int
    request_id: str


class RecordsStore:
    """Its methods raise the fault database_unavailable when the database cannot be reached, or takes too long."""

    def __init__(self, database: Database, statement_timeout_s: float) -> None:
        self._database = database
        self._statement_timeout_s = statement_timeout_s

    async def organizations(self) -> Sequence[str]:
        """All that have records."""
        async with self._database.connection(statement_timeout_s=self._statement_timeout_s) as connection:
            return await owners(connection, ["usage_records"])

    async def page(self, organization_id: str, span: Span, after: Place | None, most: int) -> Sequence[PricedUsage]:
        """The next records that ended in the span, in the order of their times."""
        place = after or Place(span.since_s * 1000, "")
        values = (organization_id, place.finished_at_ms, *place, span.until_s * 1000, most)
        async with self._database.connection(statement_timeout_s=self._statement_timeout_s) as connection:
            return [_priced(row) for row in await (await connection.execute(_SELECT, values)).fetchall()]


def _priced(row: TupleRow) -> PricedUsage:
    tools, price_id, nanodollars = row[:3]
    at = 3 + len(_WHO)
    usage = Usage(
        attribution=Attribution(**dict(zip(_WHO, row[3:at], strict=True))),
        tools=[ToolUsage(tool=tool, calls=calls) for tool, calls in (tools or {}).items()],
        **dict(zip(_PLAIN, row[at:], strict=True)),
    )
    return PricedUsage(usage=usage, nanodollars=nanodollars, price_id=price_id)
