"""The queries of projects."""

from typing import LiteralString

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Page
from modelplane.auth.v1.auth_pb2 import ModelPolicy
from modelplane.tenants.v1.tenants_pb2 import Project
from services.storage.pages import Listing, page

_COLUMNS: LiteralString = (
    "id, organization_id, name, created_at, archived_at, models_mode, models, ip_ranges, weight, external_key_id"
)
_MINE: LiteralString = "organization_id = %(organization_id)s"
_ONE: LiteralString = f"SELECT {_COLUMNS} FROM projects WHERE {_MINE} AND id = %(id)s"  # noqa: S608


class ProjectRecords:
    """Projects as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def add(self, project: Project) -> Project:
        """Gives it the time of its making."""
        return await self._changed(
            "INSERT INTO projects (id, organization_id, name, external_key_id) "  # noqa: S608
            f"VALUES (%(id)s, %(organization_id)s, %(name)s, %(external_key_id)s) RETURNING {_COLUMNS}",
            project,
        )

    async def get(self, organization_id: str, project_id: str) -> Project | None:
        return await self._one(_ONE, organization_id, project_id)

    async def lock(self, organization_id: str, project_id: str) -> Project | None:
        """The same, and nobody else changes it while the transaction lasts."""
        return await self._one(_ONE + " FOR NO KEY UPDATE", organization_id, project_id)

    async def page(self, organization_id: str, include_archived: bool, asked: Page) -> tuple[list[Project], bool]:
        live: list[LiteralString] = [] if include_archived else ["archived_at IS NULL"]
        listing = Listing(_COLUMNS, "projects", [_MINE], live=live)
        rows, has_more = await page(self._connection, listing, {"organization_id": organization_id}, asked)
        return [_project(row) for row in rows], has_more

    async def update(self, project: Project) -> Project:
        """Writes all that may change while it is active."""
        return await self._changed(
            "UPDATE projects SET name = %(name)s, external_key_id = %(external_key_id)s, weight = %(weight)s, "  # noqa: S608
            "ip_ranges = %(ip_ranges)s, models_mode = %(models_mode)s, models = %(models)s "
            f"WHERE {_MINE} AND id = %(id)s RETURNING {_COLUMNS}",
            project,
        )

    async def archive(self, project: Project) -> Project:
        return await self._changed(
            f"UPDATE projects SET archived_at = now() WHERE {_MINE} AND id = %(id)s RETURNING {_COLUMNS}",  # noqa: S608
            project,
        )

    async def _one(self, query: LiteralString, organization_id: str, project_id: str) -> Project | None:
        found = await self._connection.execute(query, {"organization_id": organization_id, "id": project_id})
        row = await found.fetchone()
        return None if row is None else _project(row)

    async def _changed(self, statement: LiteralString, project: Project) -> Project:
        values = {
            "id": project.id,
            "organization_id": project.organization_id,
            "name": project.name,
            "external_key_id": project.external_key_id,
            "weight": project.weight,
            "ip_ranges": list(project.ip_ranges),
            "models_mode": project.models.mode,
            "models": list(project.models.models),
        }
        row = await (await self._connection.execute(statement, values)).fetchone()
        assert row is not None
        return _project(row)


def _project(row: TupleRow) -> Project:
    project_id, organization_id, name, created_at, archived_at, mode, models, ip_ranges, weight, external_key_id = row
    return Project(
        id=project_id,
        organization_id=organization_id,
        name=name,
        created_at=int(created_at.timestamp()),
        archived_at=0 if archived_at is None else int(archived_at.timestamp()),
        models=ModelPolicy(mode=mode, models=models),
        ip_ranges=ip_ranges,
        weight=weight,
        external_key_id=external_key_id,
    )
