"""Counters for what happens at every request: to count is to add to an integer.

`prometheus_client`'s own counters take a lock and three calls, a microsecond each where a request has several. These
are read when metrics are asked for. For one event loop, as everything else that counts requests.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """A counter with labels: `TALLY.counts["chat", "200"] += 1`, a single label as itself: `TALLY.counts["chat"]`.

    The metric's name ends in `_total`, as every counter's.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self.counts: defaultdict[str | tuple[str, ...], int] = defaultdict(int)
        REGISTRY.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        """The family without samples, for the registry to know its name by."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[CounterMetricFamily]:
        """The family with its samples."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        # A copy: metrics may be asked for in another thread.
        for key, count in self.counts.copy().items():
            family.add_metric((key,) if isinstance(key, str) else key, count)
        return [family]
