"""What the queries of usage and of costs have in common: sums by bucket and group, of whole hours from the roll-ups and
of what is left at the ends of a span from what the roll-ups are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from services.reports.periods import Span

# Room for the groups of one question: what does not fit is sorted on disk, which takes twice as long.
_ROOM: LiteralString = "SET LOCAL work_mem = '64MB'"


class Question(NamedTuple):
    """What is asked of one organisation."""

    organization_id: str
    bucket_s: int
    hours: Span | None
    """The whole hours among them; None for none."""

    edges: Sequence[Span]
    filters: Mapping[str, Sequence[object]]
    """Of each of these fields, the values that count."""

    groups: Sequence[str]
    measures: Sequence[str]
    most: int
    """Sums at most."""


class Sum(NamedTuple):
    """Of one group in one bucket. Sums come in the order of their buckets."""

    bucket_s: int
    """A multiple of the width: the first bucket of a period may begin later."""

    groups: Mapping[str, Any]
    measures: Mapping[str, int]


async def add_up(
    connection: AsyncConnection[TupleRow],
    question: Question,
    columns: Mapping[str, sql.Composable],
    sources: Sequence[sql.Composable],
    values: Mapping[str, Any],
) -> list[Sum]:
    """The sums of all rows of the sources: queries of the columns `bucket`, a time, the groups and the measures.

    `columns` says by which of theirs each group goes.
    """
    groups = [sql.SQL("{} AS {}").format(columns[name], sql.Identifier(name)) for name in question.groups]
    measures = [sql.SQL("sum({})::bigint").format(sql.Identifier(name)) for name in question.measures]
    places = sql.SQL(", ").join(sql.Literal(place) for place in range(1, len(groups) + 2))
    query = sql.SQL(
        "SELECT bucket, {sums} FROM ({rows}) AS used GROUP BY {places} ORDER BY {places} LIMIT %(most)s"
    ).format(sums=sql.SQL(", ").join([*groups, *measures]), rows=sql.SQL(" UNION ALL ").join(sources), places=places)
    await connection.execute(_ROOM)
    cursor = await connection.execute(query, {**values, "most": question.most})
    at = 1 + len(groups)
    return [
        Sum(
            int(row[0].timestamp()),
            dict(zip(question.groups, row[1:at], strict=True)),
            dict(zip(question.measures, row[at:], strict=True)),
        )
        for row in await cursor.fetchall()
    ]


def hour_bucket(bucket_s: int) -> sql.Composed:
    """The bucket of the column `hour`."""
    return sql.SQL("date_bin(make_interval(secs => {}), hour, 'epoch')").format(sql.Literal(bucket_s))


def instant_bucket(column: sql.Composable, bucket_s: int) -> sql.Composed:
    """The bucket of a column of Unix milliseconds."""
    return sql.SQL("to_timestamp({} / {} * {})").format(column, sql.Literal(bucket_s * 1000), sql.Literal(bucket_s))


def of_hours(span: Span) -> sql.Composed:
    """A condition on the column `hour`."""
    return sql.SQL("hour >= to_timestamp({}) AND hour < to_timestamp({})").format(*map(sql.Literal, span))


def of_instants(column: sql.Composable, spans: Sequence[Span]) -> sql.Composed:
    """A condition on a column of Unix milliseconds."""
    parts = [
        sql.SQL("{column} >= {since} AND {column} < {until}").format(
            column=column, since=sql.Literal(span.since_s * 1000), until=sql.Literal(span.until_s * 1000)
        )
        for span in spans
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(parts))


def of_filters(
    question: Question, columns: Mapping[str, sql.Composable]
) -> tuple[list[sql.Composable], dict[str, Any]]:
    """Conditions, and the values that they take."""
    conditions: list[sql.Composable] = []
    values: dict[str, Any] = {}
    for name, wanted in question.filters.items():
        conditions.append(sql.SQL("{} = ANY({})").format(columns[name], sql.Placeholder(f"filter_{name}")))
        # What has a NUL in it there is not, and PostgreSQL takes none.
        values[f"filter_{name}"] = [value for value in wanted if not (isinstance(value, str) and "\0" in value)]
    return conditions, values
