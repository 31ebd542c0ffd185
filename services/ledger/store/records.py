"""The tables as one transaction sees them, and the transactions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Actor
from services.ledger.store.credits import CreditRecords
from services.ledger.store.invoices import InvoiceRecords
from services.ledger.store.prices import PriceRecords
from services.ledger.store.usage import UsageRecords
from services.storage import Database
from services.storage.audit import audit
from services.storage.postings import lock_funds


class Organization(NamedTuple):
    """What the ledger wants to know of one."""

    id: str
    name: str
    prepaid: bool


class Records:
    """What one transaction may read and change."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection
        self.prices = PriceRecords(connection)
        self.credits = CreditRecords(connection)
        self.invoices = InvoiceRecords(connection)
        self.usage = UsageRecords(connection)

    async def lock(self, organization_id: str) -> None:
        """Until the transaction ends nobody else changes what it has, owes or spends. Once in a transaction."""
        await lock_funds(self._connection, [organization_id])

    async def organization(self, organization_id: str) -> Organization | None:
        found = await self._connection.execute(
            "SELECT id, name, prepaid FROM organizations WHERE id = %s", (organization_id,)
        )
        row = await found.fetchone()
        return Organization(*row) if row else None

    async def set_terms(self, organization_id: str, *, prepaid: bool) -> None:
        await self._connection.execute(
            "UPDATE organizations SET prepaid = %s WHERE id = %s", (prepaid, organization_id)
        )

    async def audit(self, kind: str, organization_id: str, actor: Actor, subject: str, **data: Any) -> None:
        """Notes a change of `subject`, an id."""
        details = {"id": subject, "data": data}
        await audit(self._connection, kind, organization_id, actor, resource_id=subject, details=details)


class LedgerStore:
    """What the service asks of the database. Everything may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Records]:
        """All of the block or, when it raises, nothing."""
        async with self._database.connection() as connection:
            yield Records(connection)

    async def ping(self) -> None:
        """Fault: database_unavailable."""
        await self._database.ping()
