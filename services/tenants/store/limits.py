"""The queries of limits that somebody set. An empty project id stands for the organisation itself."""

from collections.abc import Sequence

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from modelplane.limits.v1.limits_pb2 import SCOPE_ORGANIZATION, SCOPE_PROJECT, Override

_SET = """
INSERT INTO limit_overrides (organization_id, project_id, model, dimension, units)
SELECT %(organization_id)s, %(project_id)s, given.model, given.dimension, given.units
FROM unnest(%(models)s::text[], %(dimensions)s::smallint[], %(units)s::bigint[]) AS given (model, dimension, units)
ON CONFLICT (organization_id, project_id, model, dimension) DO UPDATE SET units = excluded.units
WHERE limit_overrides.units <> excluded.units
"""
_CLEAR = """
DELETE FROM limit_overrides
USING unnest(%(models)s::text[], %(dimensions)s::smallint[]) AS given (model, dimension)
WHERE organization_id = %(organization_id)s AND project_id = %(project_id)s
    AND limit_overrides.model = given.model AND limit_overrides.dimension = given.dimension
RETURNING limit_overrides.model, limit_overrides.dimension, units
"""


class LimitRecords:
    """Limits as one transaction sees them."""

    def __init__(self, connection: AsyncConnection[TupleRow]) -> None:
        self._connection = connection

    async def all(self, organization_id: str, project_id: str) -> list[Override]:
        """The organisation's and, when one is named, the project's."""
        found = await self._connection.execute(
            "SELECT project_id <> '', model, dimension, units FROM limit_overrides "
            "WHERE organization_id = %s AND project_id IN ('', %s) ORDER BY project_id, model, dimension",
            (organization_id, project_id),
        )
        return [_override(*row) for row in await found.fetchall()]

    async def set(self, organization_id: str, project_id: str, overrides: Sequence[Override]) -> None:
        """Each of another model or dimension."""
        await self._connection.execute(_SET, _values(organization_id, project_id, overrides))

    async def clear(self, organization_id: str, project_id: str, overrides: Sequence[Override]) -> list[Override]:
        """Those that there were."""
        cleared = await self._connection.execute(_CLEAR, _values(organization_id, project_id, overrides))
        return [_override(bool(project_id), *row) for row in await cleared.fetchall()]


def _values(organization_id: str, project_id: str, overrides: Sequence[Override]) -> dict[str, object]:
    return {
        "organization_id": organization_id,
        "project_id": project_id,
        "models": [override.model for override in overrides],
        "dimensions": [override.dimension for override in overrides],
        "units": [override.limit for override in overrides],
    }


def _override(of_project: bool, model: str, dimension: int, units: int) -> Override:
    scope = SCOPE_PROJECT if of_project else SCOPE_ORGANIZATION
    return Override(scope=scope, model=model, dimension=dimension, limit=units)  # type: ignore[arg-type]
