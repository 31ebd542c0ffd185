"""What the pods of a group say of themselves, added up: the figures that replicas are planned by.

Pure: time comes as an argument, in seconds of a clock that never goes back. Kept true: a figure is of every ready pod
of its group or of none. One that is missing, too old, or of a pod that was just restarted would make the sum too
small, and an autoscaler would take pods away for it; it is told nothing instead, and leaves things as they are.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Figure(NamedTuple):
    """A figure that is served: of which series it is made, and whether it is their level or their rate per second."""

    series: str
    rate: bool
    words: str


FIGURES: Mapping[str, Figure] = {
    "modelplane_requests_in_flight": Figure(
        "modelplane_requests_in_flight", False, "Requests that the gateways have taken and not settled"
    ),
    "modelplane_requests_per_second": Figure("modelplane_requests_total", True, "Requests answered"),
    "modelplane_tokens_per_second": Figure("modelplane_tokens_total", True, "Tokens billed, by `model` and `kind`"),
    "modelplane_queued_requests": Figure(
        "modelplane_router_queued_requests", False, "Requests that wait for a replica, by `model`"
    ),
    "modelplane_running_requests": Figure(
        "modelplane_router_running_requests", False, "Requests that replicas run, by `model`"
    ),
    "modelplane_event_loop_lag_seconds": Figure(
        "modelplane_event_loop_lag_seconds", False, "Longest time by which a pod's event loop was late, of all pods"
    ),
    "modelplane_processor_cores": Figure("process_cpu_seconds_total", True, "Processor time used, in cores"),
}

# Every process says when it started: one that did so again counts from zero.
STARTED: Final = "process_start_time_seconds"


class Sample(NamedTuple):
    """One series of a scrape."""

    labels: Mapping[str, str]
    value: float


Samples = Mapping[str, tuple[Sample, ...]]
"""What one pod said: by the name of the series; empty for one that it has and has not used yet."""


class UnknownFigureError(Exception):
    """There is no such group, or its pods have no such figure."""


class WithheldError(Exception):
    """There is a figure, but not now; the message says why."""


class Reading(NamedTuple):
    """A figure of a group, and when the oldest of what it is made of was seen."""

    value: float
    at_s: float


def parse(text: str) -> Samples:
    """What figures are made of, out of a page in Prometheus' text format. Raises ValueError."""
    wanted = {figure.series for figure in FIGURES.values()} | {STARTED}
    line = re.compile(rf"^(?:# TYPE )?({'|'.join(map(re.escape, sorted(wanted)))})[ {{].*$", re.MULTILINE)
    found: dict[str, list[Sample]] = {}
    lines = []
    for match in line.finditer(text):
        found.setdefault(match[1], [])
        lines.append(match[0])
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            found[sample.name].append(Sample(sample.labels, sample.value))
    return {name: tuple(samples) for name, samples in found.items()}


class _Pod:
    """The scrapes of one pod that are still looked at, oldest first."""

    def __init__(self) -> None:
        self.scrapes: deque[tuple[float, Samples]] = deque()

    def add(self, at_s: float, samples: Samples, window_s: float) -> None:
        if self.scrapes and _total(self.scrapes[-1][1], STARTED, {}) != _total(samples, STARTED, {}):
            self.scrapes.clear()
        self.scrapes.append((at_s, samples))
        while self.scrapes[0][0] < at_s - window_s:
            self.scrapes.popleft()

    def value(self, figure: Figure, labels: Mapping[str, str]) -> float | None:
        """None while there is too little to tell."""
        totals = [(at_s, _total(samples, figure.series, labels)) for at_s, samples in self.scrapes]
        if not figure.rate:
            return sum(total for _, total in totals) / len(totals) if totals else None
        if len(totals) < 2:
            return None
        (first_s, first), (last_s, last) = totals[0], totals[-1]
        return (last - first) / (last_s - first_s)


class Board:
    """The latest of every pod of every group."""

    def __init__(self, groups: Iterable[str], *, window_s: float, stale_s: float) -> None:
        self._window_s = window_s
        self._stale_s = stale_s
        self._pods: dict[str, dict[str, _Pod]] = {group: {} for group in groups}
        self._listed_s: dict[str, float] = {}

    def ready(self, group: str, pods: Iterable[str], now_s: float) -> None:
        """These are the ready pods of the group, all of them."""
        known = self._pods[group]
        self._pods[group] = {pod: known.get(pod) or _Pod() for pod in pods}
        self._listed_s[group] = now_s

    def add(self, group: str, pod: str, samples: Samples, now_s: float) -> None:
        """A pod has answered. What comes of one that is not ready any more is dropped."""
        if known := self._pods[group].get(pod):
            known.add(now_s, samples, self._window_s)

    def read(self, group: str, name: str, labels: Mapping[str, str], now_s: float) -> Reading:
        """The sum over the group's pods. Raises UnknownFigureError and WithheldError."""
        figure, pods = FIGURES.get(name), self._pods.get(group)
        if figure is None or pods is None:
            raise UnknownFigureError(f"there is no figure {name} of {group}")
        if now_s - self._listed_s.get(group, float("-inf")) > self._stale_s:
            raise WithheldError(f"which pods {group} has is not known")
        if not pods:
            raise WithheldError(f"{group} has no ready pod")
        fresh = [pod for pod in pods.values() if pod.scrapes and now_s - pod.scrapes[-1][0] <= self._stale_s]
        if fresh and not any(figure.series in pod.scrapes[-1][1] for pod in fresh):
            raise UnknownFigureError(f"the pods of {group} have no {figure.series}")
        values = [value for pod in fresh if (value := pod.value(figure, labels)) is not None]
        if len(values) < len(pods):
            raise WithheldError(f"{len(pods) - len(values)} of {len(pods)} pods of {group} have no new figure yet")
        return Reading(sum(values), min(pod.scrapes[-1][0] for pod in fresh))


def _total(samples: Samples, series: str, labels: Mapping[str, str]) -> float:
    return sum(sample.value for sample in samples.get(series, ()) if labels.items() <= sample.labels.items())


def selected(selector: str) -> dict[str, str]:
    """A label selector of equalities, as an autoscaler's `matchLabels` become one. Raises ValueError for others."""
    labels: dict[str, str] = {}
    for term in filter(None, (term.strip() for term in selector.split(","))):
        match = re.fullmatch(r"([\w./-]+)\s*==?\s*([\w.-]+)", term)
        if match is None or match[1] in labels:
            raise ValueError(f"{term!r} is not understood: a selector here is label=value,…")
        labels[match[1]] = match[2]
    return labels
