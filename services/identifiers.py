"""What things are called that the platform makes: a prefix that says what they are, and what nobody can guess."""

import os

_RANDOM_BYTES = 12


def new_id(prefix: str) -> str:
    """For example `org-` and 24 hexadecimal digits."""
    return prefix + os.urandom(_RANDOM_BYTES).hex()
