"""The price book: which version of a model's price is in force at a time.

Versions are never changed and never begin in the past, so what a record costs is the same whenever it is worked out.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from services.pricing.cost import Price
from services.pricing.rates import Rates


class Version(NamedTuple):
    """A row of the book. Of versions that begin at the same time, the one with the highest id counts."""

    id: int
    model: str
    effective_at_ms: int
    source: str
    rates: Rates


class Book:
    """All versions."""

    def __init__(self, versions: Iterable[Version]) -> None:
        self._times: dict[str, list[int]] = {}
        self._prices: dict[str, list[Price]] = {}
        self.last_id = 0
        for version in sorted(versions, key=lambda version: (version.effective_at_ms, version.id)):
            self._times.setdefault(version.model, []).append(version.effective_at_ms)
            self._prices.setdefault(version.model, []).append(Price(version.id, version.rates))
            self.last_id = max(self.last_id, version.id)

    def price(self, model: str, at_ms: int) -> Price | None:
        """What the model costs at a time in Unix milliseconds; None when it has no price."""
        times = self._times.get(model)
        if times is None:
            return None
        index = bisect_right(times, at_ms)
        return self._prices[model][index - 1] if index else None

    def models(self) -> Iterable[str]:
        return self._times
