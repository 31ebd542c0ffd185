"""The tables as one transaction sees them, and the transactions."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Actor
from services.storage import Database
from services.storage.audit import audit
from services.tenants.store.events import EventRecords
from services.tenants.store.limits import LimitRecords
from services.tenants.store.organizations import OrganizationRecords
from services.tenants.store.projects import ProjectRecords
from services.tenants.store.spend import SpendRecords


class Records:
    """What one transaction may read and change."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection
        self.organizations = OrganizationRecords(connection)
        self.projects = ProjectRecords(connection)
        self.limits = LimitRecords(connection)
        self.spend = SpendRecords(connection)
        self.events = EventRecords(connection)

    async def audit(
        self,
        kind: str,
        organization_id: str,
        actor: Actor,
        subject: str,
        *,
        project_id: str = "",
        **details: Mapping[str, Any],
    ) -> None:
        """Notes a change of `subject`, an id."""
        await audit(
            self._connection,
            kind,
            organization_id,
            actor,
            project_id=project_id,
            resource_id=subject,
            details={"id": subject, **details},
        )


class TenantsStore:
    """What the service asks of the database. Everything may raise database_unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Records]:
        """All of the block or, when it raises, nothing."""
        async with self._database.connection() as connection:
            yield Records(connection)
