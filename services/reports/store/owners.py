"""Whose rows a table has, from one to the next by an index that begins with them: to read all rows for a few names
would take minutes."""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

_OWNERS: LiteralString = """
(
    WITH RECURSIVE found AS (
        SELECT min(organization_id) AS id FROM {table}
        UNION ALL
        SELECT (SELECT min(organization_id) FROM {table} WHERE organization_id > found.id) FROM found
        WHERE found.id IS NOT NULL
    )
    SELECT id FROM found WHERE id IS NOT NULL
)
"""


async def owners(connection: AsyncConnection[TupleRow], tables: Sequence[str]) -> Sequence[str]:
    """The ids of the organisations, sorted."""
    queries = [sql.SQL(_OWNERS).format(table=sql.Identifier(table)) for table in tables]
    cursor = await connection.execute(sql.SQL(" UNION ").join(queries))
    return sorted(row[0] for row in await cursor.fetchall())
