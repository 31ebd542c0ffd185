"""Counters and histograms for what happens at every request: to count is to add to an integer.

`prometheus_client`'s own take a lock and five calls, a microsecond or more each where a request has many. These are
read when metrics are asked for. For one event loop, as everything else that counts requests.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Key = str | tuple[str, ...]
"""The values of the labels in their order; of a single label its value alone."""


class Tally(Collector):
    """A counter with labels: `TALLY.counts["chat", "200"] += 1`, a single label as itself: `TALLY.counts["chat"]`.

    The metric's name ends in `_total`, as every counter's. `known` is what is shown before it was counted.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, known: Iterable[Key] = ()) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self.counts: defaultdict[Key, int] = defaultdict(int, dict.fromkeys(known, 0))
        REGISTRY.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """The family without samples, for the registry to know its name by."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The family with its samples."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        # A copy: metrics may be asked for in another thread.
        for key, count in self.counts.copy().items():
            family.add_metric(_values(key), count)
        return [family]


class HistogramTally(Collector):
    """A histogram with labels. `buckets` are the upper bounds, ascending; the one without a bound is added."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = (*buckets, float("inf"))
        # How many values fell into each bucket and not into the one before it, and after these the sum of all values.
        self._rows: defaultdict[Key, list[float]] = defaultdict(lambda: [0.0] * (len(self._bounds) + 1))
        REGISTRY.register(self)

    def observe(self, key: Key, value: float) -> None:
        """Counts a value that is a number."""
        row = self._rows[key]
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family without samples, for the registry to know its name by."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The family with its samples."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for key, (*counts, total) in self._rows.copy().items():
            buckets: list[tuple[str, float]] = []
            below = 0.0
            for bound, count in zip(self._bounds, counts, strict=True):
                below += count
                buckets.append((floatToGoString(bound), below))  # type: ignore[no-untyped-call]
            family.add_metric(_values(key), buckets=buckets, sum_value=total)
        return [family]


def _values(key: Key) -> Sequence[str]:
    return (key,) if isinstance(key, str) else key
