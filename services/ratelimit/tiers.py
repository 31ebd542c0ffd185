"""The limits of every usage tier, as the table that is shipped beside this module (`tiers.toml`) has them.

Tier 0 is Free. Which tier an organisation has is not decided here: its principal says so.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import resources
from typing import Annotated, Final

import msgspec

from services.ratelimit.limits import DIMENSIONS

TIERS: Final = range(6)

_Limits = dict[str, Annotated[int, msgspec.Meta(ge=0)]]
_ByTier = Annotated[tuple[_Limits, ...], msgspec.Meta(min_length=len(TIERS), max_length=len(TIERS))]


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models of the same limits."""

    name: str
    models: tuple[str, ...]
    """Patterns of names, with `*` for anything."""

    tiers: _ByTier
    """Limits by the word of their dimension, one row for each tier."""


class TierTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All families."""

    families: tuple[Family, ...]

    def limits(self, model: str, tier: int) -> Mapping[int, int]:
        """The limits of an organisation for a model, by dimension. A tier out of range counts as the nearest."""
        for family in self.families:
            if any(fnmatchcase(model, pattern) for pattern in family.models):
                row = family.tiers[min(max(tier, TIERS.start), TIERS.stop - 1)]
                return {DIMENSIONS[word]: limit for word, limit in row.items()}
        return {}


def load() -> TierTable:
    """Reads the shipped table."""
    text = resources.files(__package__).joinpath("tiers.toml").read_text()
    return msgspec.toml.decode(text, type=TierTable)
