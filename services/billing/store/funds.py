"""Leases of money, in PostgreSQL: what one process may spend that nobody else may.

Kept true: whoever changes what an organisation has leased, or adds to what it has spent, holds the organisation's lock
(`postings.lock_funds`) until its transaction ends, so that spent and leased are read together. A lease is not usage: it
may be lost in a crash of the database, and is written again by the next drain.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import date
from typing import Any, Final, NamedTuple

from services.billing.store.prices import Connection
from services.storage import Database
from services.storage.postings import lock_funds

CHANNEL: Final = "funds"

_SELECT = """
SELECT wanted.project_id, spend_limits.threshold_cents, coalesce(spend.nanodollars, 0), coalesce(leased.sum, 0),
    organizations.usage_tier, organizations.prepaid,
    CASE WHEN organizations.prepaid THEN
        coalesce((
            SELECT sum(remaining) FROM credits WHERE credits.organization_id = %(organization_id)s AND remaining > 0
                AND (credits.expires_at IS NULL OR credits.expires_at > clock_timestamp())
        ), 0) - coalesce((
            SELECT nanodollars FROM balances
            WHERE balances.organization_id = %(organization_id)s AND account = 'receivable'
        ), 0)
    END
FROM unnest(%(project_ids)s::text[]) AS wanted (project_id)
LEFT JOIN organizations ON organizations.id = %(organization_id)s
LEFT JOIN spend_limits
    ON spend_limits.organization_id = %(organization_id)s AND spend_limits.project_id = wanted.project_id
LEFT JOIN spend ON spend.organization_id = %(organization_id)s AND spend.project_id = wanted.project_id
    AND spend.month = %(month)s
LEFT JOIN LATERAL (
    SELECT sum(nanodollars) FROM spend_leases
    WHERE spend_leases.organization_id = %(organization_id)s AND spend_leases.project_id = wanted.project_id
        AND holder <> %(holder)s AND spend_leases.expires_at > clock_timestamp()
) AS leased ON true
"""
# The two halves touch different rows.
_LEASE = """
WITH gone AS (
    DELETE FROM spend_leases WHERE organization_id = %(organization_id)s AND CASE
        WHEN holder = %(holder)s THEN project_id <> ALL(%(project_ids)s::text[])
        ELSE expires_at <= clock_timestamp() END
)
INSERT INTO spend_leases (organization_id, project_id, holder, nanodollars, expires_at)
SELECT %(organization_id)s, project_id, %(holder)s, nanodollars, clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM unnest(%(project_ids)s::text[], %(amounts)s::bigint[]) AS leased (project_id, nanodollars)
ON CONFLICT (organization_id, project_id, holder)
    DO UPDATE SET nanodollars = excluded.nanodollars, expires_at = excluded.expires_at
"""
_ASSERT = """
INSERT INTO spend_leases (organization_id, project_id, holder, nanodollars, expires_at)
SELECT organization_id, project_id, %s, nanodollars, clock_timestamp() + make_interval(secs => %s)
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS leased (organization_id, project_id, nanodollars)
ON CONFLICT (organization_id, project_id, holder) DO UPDATE SET nanodollars = excluded.nanodollars
"""
# Waits for nobody, so that it cannot be part of a deadlock: what a drain has locked is renewed next time.
_RENEW = """
WITH mine AS (
    SELECT organization_id, project_id FROM spend_leases
    WHERE holder = %(holder)s AND expires_at > clock_timestamp() FOR UPDATE SKIP LOCKED
)
UPDATE spend_leases SET expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM mine WHERE holder = %(holder)s AND spend_leases.organization_id = mine.organization_id
    AND spend_leases.project_id = mine.project_id
RETURNING spend_leases.organization_id
"""
_RETURN = "DELETE FROM spend_leases WHERE holder = %s AND organization_id <> ALL(%s::text[])"


class Standing(NamedTuple):
    """What an organisation (an empty `project_id`) or a project may, did and could spend, in nano-dollars."""

    project_id: str
    threshold_cents: int | None
    spent: int
    """In the month that was asked for."""

    leased: int
    """By other processes."""


class Terms(NamedTuple):
    """What bounds an organisation beside its spend limit."""

    usage_tier: int | None
    """None for an organisation that does not exist."""

    credits: int | None
    """Unexpired credits less what is owed, of one that pays before."""


class FundsStore:
    """The leases of one process, for `lease_s` seconds each. Faults of its methods: database_unavailable."""

    def __init__(self, database: Database, holder: str, lease_s: float) -> None:
        self._database = database
        self.holder = holder
        self._lease_s = lease_s

    @asynccontextmanager
    async def locked(self, organization_id: str) -> AsyncIterator["FundsRecords"]:
        """One transaction, in which nobody else changes what the organisation has spent and leased."""
        async with self._database.connection() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")
            await lock_funds(connection, (organization_id,))
            yield FundsRecords(connection, organization_id, self.holder, self._lease_s)

    async def write(self, connection: Connection, leases: Mapping[tuple[str, str], int]) -> None:
        """Says again what is leased, by organisation and project, without renewing it. The caller holds the locks."""
        if leases:
            organizations, projects = zip(*leases, strict=True)
            amounts = list(leases.values())
            parameters = (self.holder, self._lease_s, list(organizations), list(projects), amounts)
            await connection.execute(_ASSERT, parameters)

    async def renew(self) -> list[str]:
        """Renews every lease that has not expired; gives the organisation of each."""
        async with self._database.connection() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")
            cursor = await connection.execute(_RENEW, {"holder": self.holder, "lease_s": self._lease_s})
            return [organization_id for (organization_id,) in await cursor.fetchall()]

    async def return_all(self, but: Collection[str]) -> None:
        """Ends all leases, but for those of some organisations."""
        async with self._database.connection() as connection:
            await connection.execute(_RETURN, (self.holder, list(but)))

    async def plead(self, organization_id: str) -> None:
        """Asks the other processes to give back what they do not need now."""
        async with self._database.connection() as connection:
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{organization_id} {self.holder}"))

    async def changes(self) -> AsyncGenerator[tuple[str, str] | None, None]:
        """The organisations whose bounds have changed, or of which another process needs money, and then its holder.

        None when anything may have changed.
        """
        async with aclosing(self._database.listen(CHANNEL)) as payloads:
            async for payload in payloads:
                if payload is None:
                    yield None
                else:
                    organization_id, _, holder = payload.partition(" ")
                    yield organization_id, holder


class FundsRecords:
    """One organisation's money as one transaction sees it."""

    def __init__(self, connection: Connection, organization_id: str, holder: str, lease_s: float) -> None:
        self._connection = connection
        self._of = {"organization_id": organization_id, "holder": holder, "lease_s": lease_s}

    async def read(self, project_ids: Sequence[str], month: date) -> tuple[Terms, list[Standing]]:
        """Of the organisation and its projects; `month` by its first day."""
        parameters: dict[str, Any] = {**self._of, "project_ids": ["", *project_ids], "month": month}
        cursor = await self._connection.execute(_SELECT, parameters)
        rows = await cursor.fetchall()
        *_, usage_tier, prepaid, credit = rows[0]
        terms = Terms(usage_tier, int(credit) if prepaid else None)
        return terms, [Standing(row[0], row[1], row[2], int(row[3])) for row in rows]

    async def lease(self, amounts: Mapping[str, int]) -> None:
        """What this process leases from now on, by project; leases that are not named end."""
        parameters: dict[str, Any] = {
            **self._of,
            "project_ids": list(amounts),
            "amounts": list(amounts.values()),
        }
        await self._connection.execute(_LEASE, parameters)
