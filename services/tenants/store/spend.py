"""The queries of spend limits and spend alerts. An empty project id stands for the organisation itself."""

from typing import LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.tenants.v1.tenants_pb2 import SpendAlert, SpendLimit
from services.storage.pages import Listing, page

_ALERT_COLUMNS: LiteralString = "id, threshold_cents, email_recipients, subject_prefix, webhook_url, created_at"
_MINE: LiteralString = "organization_id = %(organization_id)s AND project_id = %(project_id)s"


class SpendRecords:
    """Spend limits and alerts as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def limit(self, organization_id: str, project_id: str) -> SpendLimit | None:
        """As it stands this month: a cent is 10,000,000 nano-dollars."""
        found = await self._connection.execute(
            "SELECT threshold_cents, coalesce(nanodollars, 0) * 100 >= threshold_cents * 10000000 * 99 "
            "FROM spend_limits LEFT JOIN (SELECT organization_id, project_id, nanodollars FROM spend "
            "WHERE month = date_trunc('month', now() AT TIME ZONE 'UTC')) AS spent USING (organization_id, project_id) "
            "WHERE organization_id = %s AND project_id = %s",
            (organization_id, project_id),
        )
        row = await found.fetchone()
        return None if row is None else SpendLimit(threshold_cents=row[0], enforcing=row[1])

    async def set_limit(self, organization_id: str, project_id: str, threshold_cents: int) -> None:
        await self._connection.execute(
            "INSERT INTO spend_limits (organization_id, project_id, threshold_cents) VALUES (%s, %s, %s) "
            "ON CONFLICT (organization_id, project_id) DO UPDATE SET threshold_cents = excluded.threshold_cents",
            (organization_id, project_id, threshold_cents),
        )

    async def delete_limit(self, organization_id: str, project_id: str) -> bool:
        """False when there is none."""
        deleted = await self._connection.execute(
            "DELETE FROM spend_limits WHERE organization_id = %s AND project_id = %s", (organization_id, project_id)
        )
        return deleted.rowcount > 0

    async def alert(self, organization_id: str, project_id: str, alert_id: str) -> SpendAlert | None:
        found = await self._connection.execute(
            f"SELECT {_ALERT_COLUMNS} FROM spend_alerts WHERE {_MINE} AND id = %(id)s",  # noqa: S608
            {"organization_id": organization_id, "project_id": project_id, "id": alert_id},
        )
        row = await found.fetchone()
        return None if row is None else _alert(row)

    async def alerts(self, organization_id: str, project_id: str, asked: Page) -> tuple[list[SpendAlert], bool]:
        listing = Listing(_ALERT_COLUMNS, "spend_alerts", [_MINE], departed=f"list = 'spend_alerts' AND {_MINE}")
        values = {"organization_id": organization_id, "project_id": project_id}
        rows, has_more = await page(self._connection, listing, values, asked)
        return [_alert(row) for row in rows], has_more

    async def add_alert(self, organization_id: str, project_id: str, alert: SpendAlert) -> SpendAlert:
        """Gives it the time of its making."""
        made = await self._put_alert(
            "INSERT INTO spend_alerts "  # noqa: S608
            "(id, organization_id, project_id, threshold_cents, email_recipients, subject_prefix, webhook_url) "
            "VALUES (%(id)s, %(organization_id)s, %(project_id)s, %(threshold_cents)s, %(email_recipients)s, "
            f"%(subject_prefix)s, %(webhook_url)s) RETURNING {_ALERT_COLUMNS}",
            organization_id,
            project_id,
            alert,
        )
        assert made is not None
        return made

    async def replace_alert(self, organization_id: str, project_id: str, alert: SpendAlert) -> SpendAlert | None:
        """None when there is none with the id."""
        return await self._put_alert(
            "UPDATE spend_alerts SET threshold_cents = %(threshold_cents)s, "  # noqa: S608
            "email_recipients = %(email_recipients)s, subject_prefix = %(subject_prefix)s, "
            f"webhook_url = %(webhook_url)s WHERE {_MINE} AND id = %(id)s RETURNING {_ALERT_COLUMNS}",
            organization_id,
            project_id,
            alert,
        )

    async def delete_alert(self, organization_id: str, project_id: str, alert_id: str) -> bool:
        """False when there is none."""
        deleted = await self._connection.execute(
            f"DELETE FROM spend_alerts WHERE {_MINE} AND id = %(id)s",  # noqa: S608
            {"organization_id": organization_id, "project_id": project_id, "id": alert_id},
        )
        return deleted.rowcount > 0

    async def _put_alert(
        self, statement: LiteralString, organization_id: str, project_id: str, alert: SpendAlert
    ) -> SpendAlert | None:
        values = {
            "id": alert.id,
            "organization_id": organization_id,
            "project_id": project_id,
            "threshold_cents": alert.threshold_cents,
            "email_recipients": list(alert.email_recipients),
            "subject_prefix": alert.subject_prefix,
            "webhook_url": alert.webhook_url,
        }
        row = await (await self._connection.execute(statement, values)).fetchone()
        return None if row is None else _alert(row)


def _alert(row: TupleRow) -> SpendAlert:
    alert_id, threshold_cents, email_recipients, subject_prefix, webhook_url, created_at = row
    return SpendAlert(
        id=alert_id,
        threshold_cents=threshold_cents,
        email_recipients=email_recipients,
        subject_prefix=subject_prefix,
        webhook_url=webhook_url,
        created_at=int(created_at.timestamp()),
    )
