"""How the lines of what was billed are shown: OpenAI's units, in place of those that are priced. Pure."""

from collections.abc import Mapping
from typing import Final

_TOKENS: Final = "tokens"
_TOOL: Final = "tool:"
# Unit and how many of the line's own make one of it. Discounts, premiums and refunds count nothing.
_UNITS: Final[Mapping[str, tuple[str, int]]] = {
    "input": (_TOKENS, 1),
    "cached_input": (_TOKENS, 1),
    "cache_write": (_TOKENS, 1),
    "input_audio": (_TOKENS, 1),
    "input_image": (_TOKENS, 1),
    "output": (_TOKENS, 1),
    "output_audio": (_TOKENS, 1),
    "output_image": (_TOKENS, 1),
    "image": ("images", 1),
    "audio": ("duration_seconds", 1000),
    "characters": ("characters", 1),
    "storage": ("gibibyte_hours", 2**30 * 3600),
}


def shown(line: str, quantity: int) -> tuple[float, str] | None:
    """Quantity and unit; None for a line that counts nothing. See `services.pricing.cost` for the lines."""
    if line.startswith(_TOOL):
        return quantity, "calls"
    if line not in _UNITS:
        return None
    unit, size = _UNITS[line]
    return quantity / size, unit
