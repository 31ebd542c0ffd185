"""Bars: what a benchmark's figures are held to, a line each, the same in every `make bench-…`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Bar:
    """A figure and the threshold that it must not miss."""

    name: str
    value: float
    op: Literal["<=", ">="]
    threshold: float

    @property
    def short(self) -> bool:
        return self.value > self.threshold if self.op == "<=" else self.value < self.threshold

    def __str__(self) -> str:
        return f"bar {self.name} {self.value:.4f} {self.op} {self.threshold:g} {'short' if self.short else 'ok'}"
