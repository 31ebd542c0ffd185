"""What commands print: a table with the ids first, or JSON."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

Row = Mapping[str, object]
"""Values by the names of their columns; None for what there is not."""

Answer = Row | Sequence[Row]
"""One object, or a list of objects with the same columns."""


def moment(seconds: int) -> datetime | None:
    """Of a time in Unix seconds, of which 0 is none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def show(answer: Answer, *, as_json: bool) -> None:
    """Prints it. An empty list prints nothing, or `[]`."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(answer)).decode())
        return
    for line in table([answer] if isinstance(answer, Mapping) else answer):
        print(line)


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of columns as wide as they must be."""
    if not rows:
        return []
    cells = [[name.replace("_", " ").upper() for name in rows[0]]]
    cells += [[text(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def text(value: object) -> str:
    """A cell."""
    match value:
        case None | "" | [] | ():
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            return " ".join(map(str, value))
        case _:
            return str(value)
