"""Lists of the admin API: which part of one a query asks for, and the envelope that it comes in."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec

from modelplane.admin.v1.admin_pb2 import Page
from services.asked import MOST_LISTED, unknown_cursor
from services.faults import InvalidRequest
from services.gateway.requests.values import integer, one_of, unknown, wrong_type

MOST_BODY_BYTES: Final = 1024 * 1024
DEFAULT_LIMIT: Final = 20
MOST_FIELDS: Final = 500
CURSORS: Final = ("after", "before")

T = TypeVar("T", bound=Mapping[str, Any])

_limit = integer(1, MOST_LISTED)
_order = one_of("asc", "desc")


class Listing(NamedTuple):
    """A page, the values of the parameters that may be given several times, and of those that the list alone has."""

    page: Page
    arrays: Mapping[str, Sequence[str]]
    values: Mapping[str, Any]


def parse_listing(
    query: bytes,
    arrays: Sequence[str] = (),
    own: Mapping[str, Callable[[str, str], Any]] | None = None,
    *,
    limit: int = DEFAULT_LIMIT,
    ascending: bool = False,
) -> Listing:
    """The query of a list. Raises InvalidRequest.

    Its `arrays` come as `name=…` or, from the SDKs, as `name[]=…`; `own` parses what other lists do not have. `limit`
    and `ascending` hold where the query does not say.
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequest("invalid_value", "The query of the URL has too many parameters.") from None
    page = Page(limit=limit, ascending=ascending)
    several: dict[str, list[str]] = {name: [] for name in arrays}
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name == "limit":
            page.limit = _limit(name, number(name, text))
        elif name == "order":
            page.ascending = _order(name, text) == "asc"
        elif name in CURSORS:
            setattr(page, name, text)
        elif own and name in own:
            values[name] = own[name](name, text)
        elif (array := name.removesuffix("[]")) in several:
            several[array].append(text)
        else:
            raise unknown(name)
    return Listing(page, several, values)


def listed(items: Sequence[Mapping[str, Any]], has_more: bool) -> bytes:
    """OpenAI's list of objects with ids."""
    first_id, last_id = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return msgspec.json.encode(
        {"object": "list", "data": items, "first_id": first_id, "last_id": last_id, "has_more": has_more}
    )


def number(name: str, text: str) -> int:
    """An integer of a query."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise wrong_type(name, "an integer", text)
    return int(text)


def flag(name: str, text: str) -> bool:
    """A boolean of a query."""
    if text not in ("true", "false"):
        raise wrong_type(name, "a boolean", text)
    return text == "true"


def within_page(items: Sequence[T], page: Page) -> tuple[Sequence[T], bool]:
    """The part of a whole list, given in ascending order, that is asked for, and whether there is more of it.

    Raises InvalidRequest for a cursor that names no item.
    """
    found = items if page.ascending else items[::-1]
    ids = [item["id"] for item in found]
    for name in CURSORS:
        if (cursor := getattr(page, name)) and cursor not in ids:
            raise unknown_cursor(name, cursor)
    start = ids.index(page.after) + 1 if page.after else 0
    end = ids.index(page.before) if page.before else len(ids)
    found = found[start:end]
    # What is nearest to `before`, when that is the only cursor.
    part = found[-page.limit :] if page.before and not page.after else found[: page.limit]
    return part, len(part) < len(found)
