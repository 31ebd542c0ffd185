"""Pages of a list by cursor, for every store: rows in the order of a time and an id, from a row that was seen.

A row that is shown no longer, whether it is kept or has left its place in `departed`, is a cursor still, so that a list
can be emptied while it is read. A cursor that never named a row of the list's owner is refused: an empty page would
look like the list's end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from modelplane.admin.v1.admin_pb2 import Page
from services.asked import unknown_cursor

CURSORS: Final[Sequence[LiteralString]] = ("after", "before")


class Listing(NamedTuple):
    """A query of whole rows. `conditions` say whose they are and never change; they take named values, as in
    `organization_id = %(organization_id)s`. `live` are those that a row may cease to fulfil. `at` and `id` are the
    columns that give the order, `at` a time that never changes. `departed` says which rows of the table `departed` were
    rows of it, if they are deleted."""

    columns: LiteralString
    table: LiteralString
    conditions: Sequence[LiteralString]
    at: LiteralString = "created_at"
    id: LiteralString = "id"
    live: Sequence[LiteralString] = ()
    departed: LiteralString = ""


async def page(
    connection: AsyncConnection[TupleRow], listing: Listing, values: Mapping[str, Any], page: Page
) -> tuple[list[TupleRow], bool]:
    """The rows in the order asked for, and whether there are more in the direction of reading. Raises InvalidRequest
    for an unknown cursor."""
    own = sql.SQL(" AND ").join(sql.SQL(condition) for condition in listing.conditions)
    conditions: list[sql.Composable] = [own, *map(sql.SQL, listing.live)]
    order = sql.SQL("({}, {})").format(sql.SQL(listing.at), sql.SQL(listing.id))
    # Reading backwards from `before`, the rows nearest to it come first and are turned round at the end.
    backwards = bool(page.before) and not page.after
    ascending = page.ascending != backwards
    wanted: dict[str, Any] = {**values, "limit": page.limit + 1}
    seen = {name: _seen(listing, name) for name in CURSORS if getattr(page, name)}
    for name, place in seen.items():
        wanted[name] = getattr(page, name)
        sign = sql.SQL(">" if page.ascending == (name == "after") else "<")
        conditions.append(sql.SQL("{} {} {}").format(order, sign, place))
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
    if not rows:
        for name, place in seen.items():
            if await (await connection.execute(place, wanted)).fetchone() is None:
                raise unknown_cursor(name, wanted[name])
    found = rows[: page.limit]
    return found[::-1] if backwards else found, len(rows) > page.limit


def _seen(listing: Listing, name: LiteralString) -> sql.Composed:
    """The place of the row that the value `name` names; of one that came back, where it is now."""
    place = sql.SQL("SELECT {at} AS at, {id} AS id, false AS gone FROM {table} WHERE {where} AND {id} = {name}").format(
        at=sql.SQL(listing.at),
        id=sql.SQL(listing.id),
        table=sql.SQL(listing.table),
        where=sql.SQL(" AND ").join(map(sql.SQL, listing.conditions)),
        name=sql.Placeholder(name),
    )
    if listing.departed:
        gone = sql.SQL(" UNION ALL SELECT at, id, true FROM departed WHERE {} AND id = {}").format(
            sql.SQL(listing.departed), sql.Placeholder(name)
        )
        place += gone
    return sql.SQL("(SELECT at, id FROM ({}) AS seen ORDER BY gone LIMIT 1)").format(place)
