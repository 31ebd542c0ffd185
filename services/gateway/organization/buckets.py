"""Reports over time, as OpenAI's API takes and shows them: their queries, and pages of buckets."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from services.faults import InvalidRequest
from services.gateway.organization.paging import MOST_FIELDS, flag, number
from services.gateway.requests.values import integer, missing, one_of, unknown, unsupported, unsupported_value


class Width(NamedTuple):
    """Of a bucket, and how many of them a page has: by default, and at most."""

    seconds: int
    default: int
    most: int


class Allowed(NamedTuple):
    """What the query of an endpoint may say, beside the times."""

    widths: Mapping[str, Width]
    arrays: Sequence[str]
    groups: Sequence[str]
    batch: bool = False
    choices: Mapping[str, Callable[[str, str], str]] = {}
    """Checks of the items of arrays, where not everything is possible."""

    unsupported: Sequence[str] = ()
    """Parameters that OpenAI's API has and this platform does not."""

    unsupported_groups: Collection[str] = ()


class Asked(NamedTuple):
    """A query."""

    start_time: int
    end_time: int
    bucket_s: int
    limit: int
    page: str
    group_by: Sequence[str]
    arrays: Mapping[str, Sequence[str]]
    batch: bool | None


DEFAULT_WIDTH: Final = "1d"
_INTEGERS: Final = ("start_time", "end_time", "limit")


def parse(query: bytes, allowed: Allowed) -> Asked:
    """Arrays come as `name=…` or, from the SDKs, as `name[]=…`. Raises InvalidRequest."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest("invalid_value", "The query of the URL has too many parameters.") from None
    group_of = one_of(*allowed.groups)
    arrays: dict[str, list[str]] = {name: [] for name in allowed.arrays}
    groups: dict[str, None] = {}
    values: dict[str, Any] = {}
    for name, text in pairs:
        array = name.removesuffix("[]")
        if name in _INTEGERS:
            values[name] = number(name, text)
        elif name == "page":
            values[name] = text
        elif name == "bucket_width":
            values[name] = one_of(*allowed.widths)(name, text)
        elif name == "batch" and allowed.batch:
            values[name] = flag(name, text)
        elif array == "group_by":
            if text in allowed.unsupported_groups:
                raise unsupported_value(array, text, allowed.groups)
            groups[group_of(array, text)] = None
        elif array in arrays:
            check = allowed.choices.get(array)
            arrays[array].append(check(array, text) if check else text)
        else:
            raise unsupported(array) if array in allowed.unsupported else unknown(name)
    if "start_time" not in values:
        raise missing("start_time")
    width = allowed.widths[values.get("bucket_width", DEFAULT_WIDTH)]
    return Asked(
        start_time=values["start_time"],
        end_time=_end(values),
        bucket_s=width.seconds,
        limit=integer(1, width.most)("limit", values.get("limit", width.default)),
        page=values.get("page", ""),
        group_by=tuple(groups),
        arrays={name: items for name, items in arrays.items() if items},
        batch=values.get("batch"),
    )


def _end(values: Mapping[str, Any]) -> int:
    """0 for none, which no query may say."""
    if values.get("end_time") == 0:
        raise InvalidRequest("invalid_value", "Invalid 'end_time': it must be after 'start_time'.", param="end_time")
    return int(values.get("end_time", 0))


def page_object(buckets: Iterable[tuple[int, int, Sequence[Mapping[str, Any]]]], next_page: str) -> bytes:
    """OpenAI's page of buckets: their starts, their ends and their results."""
    data = [
        {"object": "bucket", "start_time": start, "end_time": end, "results": results}
        for start, end, results in buckets
    ]
    return msgspec.json.encode(
        {"object": "page", "data": data, "has_more": bool(next_page), "next_page": next_page or None}
    )
