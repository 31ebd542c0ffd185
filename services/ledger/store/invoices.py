"""The queries of invoices. An invoice has everything up to the end of its month that no invoice before it has, so
that what reached the ledger late is billed later, and nothing is billed twice."""

from collections.abc import Sequence
from datetime import date
from typing import LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from modelplane.ledger.v1.ledger_pb2 import Invoice, InvoiceLine

_COLUMNS: LiteralString = (
    "id, organization_id, organization_name, month, issued_at, total_nanodollars, credits_nanodollars"
)
_MONTH_START: LiteralString = "(%(until)s::date::timestamp AT TIME ZONE 'UTC')"
_LINES: LiteralString = f"""
SELECT project_id, model, line, sum(quantity)::bigint, sum(nanodollars)::bigint
FROM (
    SELECT project_id, model, line, quantity, nanodollars FROM cost_hours
    WHERE organization_id = %(organization)s AND hour < {_MONTH_START}
    UNION ALL
    SELECT entry ->> 0, entry ->> 1, entry ->> 2, -(entry ->> 3)::bigint, -(entry ->> 4)::bigint
    FROM invoices, jsonb_array_elements(lines) AS entry
    WHERE organization_id = %(organization)s AND month < %(until)s
) AS used
GROUP BY 1, 2, 3 HAVING sum(nanodollars) <> 0 OR sum(quantity) <> 0
ORDER BY 1, 2, 3
"""  # noqa: S608
# Credits cover the oldest usage first: what is owed for usage after the month is not the month's.
_OWED: LiteralString = f"""
SELECT coalesce((
    SELECT nanodollars FROM balances WHERE organization_id = %(organization)s AND account = 'receivable'
), 0) - coalesce((
    SELECT sum(nanodollars) FROM cost_hours
    WHERE organization_id = %(organization)s AND hour >= {_MONTH_START} AND line <> 'refund'
), 0)::bigint
"""  # noqa: S608
_SPENT: LiteralString = "SELECT organization_id, month, nanodollars FROM spend WHERE project_id = '' AND month < %s"
_ISSUED: LiteralString = "SELECT organization_id, month, total_nanodollars FROM invoices WHERE month < %s"
# Every month with usage after the last invoice, and the last month whenever something is not invoiced yet.
_DUE: LiteralString = f"""
WITH spent AS ({_SPENT}), issued AS ({_ISSUED}),
last AS (SELECT organization_id, max(month) AS month FROM issued GROUP BY 1),
open AS (
    SELECT organization_id FROM (
        SELECT organization_id, nanodollars FROM spent
        UNION ALL SELECT organization_id, -total_nanodollars FROM issued
    ) AS sums GROUP BY 1 HAVING sum(nanodollars) <> 0
)
SELECT organization_id, month FROM (
    SELECT spent.organization_id, spent.month FROM spent LEFT JOIN last USING (organization_id)
    WHERE last.month IS NULL OR spent.month > last.month
    UNION
    SELECT organization_id, %s::date FROM open
) AS due
WHERE NOT EXISTS (
    SELECT FROM invoices WHERE invoices.organization_id = due.organization_id AND invoices.month >= due.month
)
AND EXISTS (SELECT FROM organizations WHERE id = organization_id)
ORDER BY organization_id, month
"""  # noqa: S608


class Due(NamedTuple):
    """An invoice that is to be issued; `month` is the month's first day."""

    organization_id: str
    month: date


class InvoiceRecords:
    """Invoices as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def due(self, last: date, until: date) -> Sequence[Due]:
        """What is to be issued for months up to the `last` one, which ends at `until`, in the order of the months."""
        found = await self._connection.execute(_DUE, (until, until, last))
        return [Due(*row) for row in await found.fetchall()]

    async def lines(self, organization_id: str, until: date) -> Sequence[InvoiceLine]:
        """Everything before `until` that no invoice of a month before it has."""
        found = await self._connection.execute(_LINES, {"organization": organization_id, "until": until})
        return [
            InvoiceLine(project_id=row[0], model=row[1], line=row[2], quantity=row[3], nanodollars=row[4])
            for row in await found.fetchall()
        ]

    async def owed(self, organization_id: str, until: date) -> int:
        """What credits have not covered of the usage before `until`."""
        found = await self._connection.execute(_OWED, {"organization": organization_id, "until": until})
        row = await found.fetchone()
        assert row is not None
        return max(0, int(row[0]))

    async def add(self, invoice: Invoice, month: date) -> bool:
        """False when there is an invoice of this month."""
        lines = [[line.project_id, line.model, line.line, line.quantity, line.nanodollars] for line in invoice.lines]
        added = await self._connection.execute(
            "INSERT INTO invoices (id, organization_id, month, organization_name, lines, total_nanodollars, "
            "credits_nanodollars) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                invoice.id,
                invoice.organization_id,
                month,
                invoice.organization_name,
                Jsonb(lines),
                invoice.total_nanodollars,
                invoice.credits_nanodollars,
            ),
        )
        return added.rowcount > 0

    async def all(self, organization_id: str) -> Sequence[Invoice]:
        """The newest first, without their lines."""
        found = await self._connection.execute(
            f"SELECT {_COLUMNS} FROM invoices WHERE organization_id = %s ORDER BY month DESC",  # noqa: S608
            (organization_id,),
        )
        return [_invoice(row) for row in await found.fetchall()]

    async def get(self, organization_id: str, invoice_id: str, month: date | None) -> Invoice | None:
        """By its id or by its month."""
        found = await self._connection.execute(
            f"SELECT {_COLUMNS}, lines FROM invoices WHERE organization_id = %s AND (id = %s OR month = %s)",  # noqa: S608
            (organization_id, invoice_id, month),
        )
        row = await found.fetchone()
        if row is None:
            return None
        invoice = _invoice(row[:-1])
        for project_id, model, line, quantity, nanodollars in row[-1]:
            invoice.lines.add(project_id=project_id, model=model, line=line, quantity=quantity, nanodollars=nanodollars)
        return invoice


def _invoice(row: TupleRow) -> Invoice:
    invoice_id, organization_id, name, month, issued_at, total, covered = row
    return Invoice(
        id=invoice_id,
        organization_id=organization_id,
        organization_name=name,
        month=f"{month:%Y-%m}",
        issued_at=int(issued_at.timestamp()),
        total_nanodollars=total,
        credits_nanodollars=covered,
    )
