"""How much output a request will probably have, learned from what the same key lately got from the same model.

An average that follows slowly: one long answer does not make the next requests look long. It only sizes
reservations; what a request really uses is settled, so that a wrong expectation costs accuracy and nothing else.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

# A new observation counts an eighth: about the last twenty requests matter.
_WEIGHT: Final = 1 / 8
# The one that was longest without news is forgotten first.
MOST_KEPT: Final = 10_000


class Learned(NamedTuple):
    """One average."""

    model: str
    key_id: str
    output_tokens: float


class Expectations:
    """Expected output tokens per model and key. Keeps a bounded number of averages."""

    def __init__(self, first_guess: int) -> None:
        self._first_guess = first_guess
        self._learned: dict[tuple[str, str], float] = {}

    def output_tokens(self, model: str, key_id: str) -> int:
        """What to expect of one request; the first guess for a key that has taught nothing yet."""
        return round(self._learned.get((model, key_id), self._first_guess))

    def learn(self, model: str, key_id: str, output_tokens: int) -> None:
        """Moves the average towards what one request used."""
        key = (model, key_id)
        average = self._learned.pop(key, float(self._first_guess))
        self._keep(key, average + _WEIGHT * (output_tokens - average))

    def states(self) -> Iterator[Learned]:
        """Everything learned, the oldest news first."""
        for (model, key_id), output_tokens in self._learned.items():
            yield Learned(model, key_id, output_tokens)

    def restore(self, learned: Iterable[Learned]) -> None:
        """Takes up what `states` gave."""
        for model, key_id, output_tokens in learned:
            self._keep((model, key_id), output_tokens)

    def _keep(self, key: tuple[str, str], average: float) -> None:
        self._learned[key] = average
        if len(self._learned) > MOST_KEPT:
            del self._learned[next(iter(self._learned))]
