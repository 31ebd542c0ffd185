"""What may be asked of the services that administer: the rules that they share. Pure; each check returns what it is
given, or raises InvalidRequest.

Keeps true: what cannot be kept is refused before the database is asked, which holds no NUL and takes none either.
Control characters are in no name: terminals obey some of them, and in the subject of a letter they would begin a line
of its own. Of an e-mail address only the form is held to: whether anybody reads what is sent there, an answer shows.
"""

import re

from modelplane.admin.v1.admin_pb2 import Page
from services.faults import InvalidRequest

MOST_LISTED = 100
MOST_CHARACTERS = 256
MOST_ADDRESS = 254
# A thousand million dollars: in nanodollars still far inside 64 bits.
MOST_CENTS = 10**11

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_MOST_LOCAL = 64
_ATOM = r'[^\s"(),.:;<>@\[\\\]]+'
_LABEL = r"(?!-)(?:[^\W_]|-){1,63}(?<!-)"
_ADDRESS = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@{_LABEL}(?:\.{_LABEL})*")


def has_nul(*texts: str) -> bool:
    """Whether there can be nothing of such a name."""
    return any("\0" in text for text in texts)


def line(text: str, param: str) -> str:
    """Up to 256 characters."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidRequest(
            "string_above_max_length",
            f"Invalid '{param}': it has {len(text)} characters; at most {MOST_CHARACTERS} are possible.",
            param=param,
        )
    if _CONTROL.search(text):
        raise InvalidRequest("invalid_value", f"Invalid '{param}': it has control characters.", param=param)
    return text


def number(value: int, least: int, most: int, param: str) -> int:
    if value < least:
        raise InvalidRequest("integer_below_min_value", f"Invalid '{param}': {value} is below {least}.", param=param)
    if value > most:
        raise InvalidRequest("integer_above_max_value", f"Invalid '{param}': {value} is above {most}.", param=param)
    return value


def page(asked: Page) -> Page:
    """A page of 1 to 100 rows."""
    number(asked.limit, 1, MOST_LISTED, "limit")
    for param, cursor in (("after", asked.after), ("before", asked.before)):
        if has_nul(cursor):
            raise unknown_cursor(param, cursor)
    return asked


def unknown_cursor(param: str, cursor: str) -> InvalidRequest:
    """For a cursor that never named anything in the list: an empty page would look like the list's end."""
    return InvalidRequest("invalid_value", f"Invalid '{param}': there is no '{cursor}' in this list.", param=param)


def is_address(text: str) -> bool:
    """Whether it is `local@domain`: without quotes, comments, white space and what cannot be printed."""
    if len(text) > MOST_ADDRESS or not text.isprintable():
        return False
    match = _ADDRESS.fullmatch(text)
    return match is not None and len(match["local"]) <= _MOST_LOCAL
