"""What an e-mail address looks like. Pure.

Only the form is held to: whether anybody reads what is sent there, the invite's acceptance shows.
"""

import re

MOST_CHARACTERS = 254
_MOST_LOCAL = 64

_ATOM = r'[^\s"(),.:;<>@\[\\\]]+'
_LABEL = r"(?!-)(?:[^\W_]|-){1,63}(?<!-)"
_ADDRESS = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@{_LABEL}(?:\.{_LABEL})*")


def is_address(text: str) -> bool:
    """Whether it is `local@domain`: without quotes, comments, white space and what cannot be printed."""
    if len(text) > MOST_CHARACTERS or not text.isprintable():
        return False
    match = _ADDRESS.fullmatch(text)
    return match is not None and len(match["local"]) <= _MOST_LOCAL
