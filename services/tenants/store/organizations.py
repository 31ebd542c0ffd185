"""The queries of organisations and of what they paid."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.tenants.v1.tenants_pb2 import Organization
from services.storage.pages import Listing, page
from services.tenants.tiers import Threshold

_COLUMNS: LiteralString = "id, name, created_at, usage_tier, tier_pinned, paid_nanodollars, first_paid_at"
# "tena"; any number that nothing else locks.
_FIRST_LOCK = 0x74656E61

# Whoever has earned a tier above the next one has earned the next one, too.
_DUE: LiteralString = f"""
SELECT {_COLUMNS} FROM organizations
JOIN unnest(%(tiers)s::smallint[], %(paid)s::bigint[], %(latest)s::timestamptz[]) AS next (tier, paid, latest)
    ON next.tier = usage_tier + 1
WHERE NOT tier_pinned AND paid_nanodollars >= next.paid AND first_paid_at <= next.latest
ORDER BY id LIMIT %(most)s
FOR NO KEY UPDATE OF organizations SKIP LOCKED
"""  # noqa: S608


class OrganizationRecords:
    """Organisations and payments as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def be_first(self) -> None:
        """Keeps all others who call this waiting until the transaction ends."""
        await self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (_FIRST_LOCK,))

    async def oldest(self) -> tuple[str, str] | None:
        """The ids of the oldest organisation and of its oldest project, an active one if there is any."""
        found = await self._connection.execute(
            "SELECT organization_id, projects.id FROM organizations "
            "JOIN projects ON organization_id = organizations.id "
            "ORDER BY organizations.created_at, organizations.id, archived_at IS NOT NULL, "
            "projects.created_at, projects.id LIMIT 1"
        )
        row = await found.fetchone()
        return None if row is None else (row[0], row[1])

    async def add(self, organization_id: str, name: str, usage_tier: int, tier_pinned: bool) -> Organization:
        made = await self._connection.execute(
            "INSERT INTO organizations (id, name, usage_tier, tier_pinned) VALUES (%s, %s, %s, %s) "  # noqa: S608
            f"RETURNING {_COLUMNS}",
            (organization_id, name, usage_tier, tier_pinned),
        )
        row = await made.fetchone()
        assert row is not None
        return _organization(row)

    async def get(self, organization_id: str) -> Organization | None:
        return await self._one(f"SELECT {_COLUMNS} FROM organizations WHERE id = %s", organization_id)  # noqa: S608

    async def lock(self, organization_id: str) -> Organization | None:
        """The same, and nobody else changes it while the transaction lasts."""
        query: LiteralString = f"SELECT {_COLUMNS} FROM organizations WHERE id = %s FOR NO KEY UPDATE"  # noqa: S608
        return await self._one(query, organization_id)

    async def page(self, asked: Page) -> tuple[list[Organization], bool]:
        rows, has_more = await page(self._connection, Listing(_COLUMNS, "organizations", ["true"]), {}, asked)
        return [_organization(row) for row in rows], has_more

    async def set_tier(self, organization: Organization) -> None:
        """Writes its usage tier and what that depends on."""
        await self._connection.execute(
            "UPDATE organizations SET usage_tier = %s, tier_pinned = %s, paid_nanodollars = %s, "
            "first_paid_at = to_timestamp(%s) WHERE id = %s",
            (
                organization.usage_tier,
                organization.tier_pinned,
                organization.paid_nanodollars,
                organization.first_paid_at or None,
                organization.id,
            ),
        )

    async def due(self, thresholds: Sequence[Threshold], now_s: int, most: int) -> list[Organization]:
        """Those that have earned a higher tier than they have, locked; without those that somebody else has locked."""
        values = {
            "tiers": list(range(1, len(thresholds) + 1)),
            "paid": [threshold.paid_nanodollars for threshold in thresholds],
            "latest": [datetime.fromtimestamp(now_s - threshold.age_s, UTC) for threshold in thresholds],
            "most": most,
        }
        return [_organization(row) for row in await (await self._connection.execute(_DUE, values)).fetchall()]

    async def add_payment(self, organization_id: str, payment_id: str, amount_nanodollars: int, now_s: int) -> bool:
        """False when there is a payment of this id."""
        added = await self._connection.execute(
            "INSERT INTO payments (organization_id, id, amount_nanodollars, received_at) "
            "VALUES (%s, %s, %s, to_timestamp(%s)) ON CONFLICT DO NOTHING",
            (organization_id, payment_id, amount_nanodollars, now_s),
        )
        return added.rowcount > 0

    async def has_payment(self, organization_id: str, payment_id: str, amount_nanodollars: int) -> bool:
        found = await self._connection.execute(
            "SELECT 1 FROM payments WHERE organization_id = %s AND id = %s AND amount_nanodollars = %s",
            (organization_id, payment_id, amount_nanodollars),
        )
        return await found.fetchone() is not None

    async def _one(self, query: LiteralString, organization_id: str) -> Organization | None:
        row = await (await self._connection.execute(query, (organization_id,))).fetchone()
        return None if row is None else _organization(row)


def _organization(row: TupleRow) -> Organization:
    organization_id, name, created_at, usage_tier, tier_pinned, paid_nanodollars, first_paid_at = row
    return Organization(
        id=organization_id,
        name=name,
        created_at=int(created_at.timestamp()),
        usage_tier=usage_tier,
        tier_pinned=tier_pinned,
        paid_nanodollars=paid_nanodollars,
        first_paid_at=0 if first_paid_at is None else int(first_paid_at.timestamp()),
    )
