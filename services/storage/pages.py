"""Pages of a list by cursor, for every store: rows in the order of a time and an id, from a row that was seen.

A cursor that names no row of the list's owner gives an empty page: whether it ever existed is nobody's business. A row
that is kept but shown no longer is a cursor still, so that a list can be emptied while it is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Page


class Listing(NamedTuple):
    """A query of whole rows. `conditions` say whose they are and never change; they take named values, as in
    `organization_id = %(organization_id)s`. `live` are those that a row may cease to fulfil. `at` and `id` are the
    columns that give the order, `at` a time that never changes."""

    columns: LiteralString
    table: LiteralString
    conditions: Sequence[LiteralString]
    at: LiteralString = "created_at"
    id: LiteralString = "id"
    live: Sequence[LiteralString] = ()


async def page(
    connection: AsyncConnection[TupleRow], listing: Listing, values: Mapping[str, Any], page: Page
) -> tuple[list[TupleRow], bool]:
    """The rows in the order asked for, and whether there are more in the direction of reading."""
    own = sql.SQL(" AND ").join(sql.SQL(condition) for condition in listing.conditions)
    conditions: list[sql.Composable] = [own, *map(sql.SQL, listing.live)]
    order = sql.SQL("({}, {})").format(sql.SQL(listing.at), sql.SQL(listing.id))
    # Reading backwards from `before`, the rows nearest to it come first and are turned round at the end.
    backwards = bool(page.before) and not page.after
    ascending = page.ascending != backwards
    wanted: dict[str, Any] = {**values, "limit": page.limit + 1}
    for cursor, forward in ((page.after, True), (page.before, False)):
        if not cursor:
            continue
        name = "after" if forward else "before"
        wanted[name] = cursor
        seen = sql.SQL("(SELECT {at}, {id} FROM {table} WHERE {where} AND {id} = %({name})s)").format(
            at=sql.SQL(listing.at),
            id=sql.SQL(listing.id),
            table=sql.SQL(listing.table),
            where=own,
            name=sql.SQL(name),
        )
        sign = sql.SQL(">" if page.ascending == forward else "<")
        conditions.append(sql.SQL("{} {} {}").format(order, sign, seen))
    direction = sql.SQL("ASC" if ascending else "DESC")
    query = sql.SQL(
        "SELECT {columns} FROM {table} WHERE {where} ORDER BY {at} {way}, {id} {way} LIMIT %(limit)s"
    ).format(
        columns=sql.SQL(listing.columns),
        table=sql.SQL(listing.table),
        where=sql.SQL(" AND ").join(conditions),
        at=sql.SQL(listing.at),
        id=sql.SQL(listing.id),
        way=direction,
    )
    rows = await (await connection.execute(query, wanted)).fetchall()
    found = rows[: page.limit]
    return found[::-1] if backwards else found, len(rows) > page.limit
