"""What an open request has taken, and how that is corrected once it is known what the request used.

The tokens of a reservation are taken in parts: the estimate, and a further part each time that the request outgrows
what it has. The use fills the parts in the order of their taking, and the last one carries what goes beyond.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.ratelimit.buckets import Correction, Need
from services.ratelimit.gcra import Claim
from services.ratelimit.limits import Plan


class TopUp(NamedTuple):
    """A further part: a claim on each token bucket of the plan."""

    needs: Sequence[Need]
    claims: Sequence[Claim]


@dataclass(slots=True)
class Hold:
    """One open reservation."""

    plan: Plan
    model: str
    key_id: str
    input_tokens: int

    most_tokens: int
    """The prompt and all the output that the request may have."""

    tokens: int
    """Taken from the token buckets so far."""

    known_tokens: int
    """What the request is known to have used: its prompt, and what it told since."""

    expires_ns: int

    needs: Sequence[Need]
    """In the order of `Plan.needs`."""

    claims: Sequence[Claim]
    top_ups: tuple[TopUp, ...] = ()

    def step(self, used: int, expected_output_tokens: int) -> int:
        """The tokens to hold now that `used` is more than is held: twice the output, or what is expected.

        Doubling keeps the number of steps small; the bound keeps them from what the request can never use.
        """
        output_tokens = max(self.tokens - self.input_tokens, expected_output_tokens, 1)
        return max(used, min(self.tokens + output_tokens, self.most_tokens))

    def to(self, used: int) -> list[Correction]:
        """Corrects the tokens to those used. What else the request took, it used."""
        corrections: list[Correction] = []
        parts = self._parts()
        last = len(parts) - 1
        for index, (needs, claims) in enumerate(parts):
            units = needs[0].units
            share = used if index == last or used < units else units
            used -= share
            if share != units:
                # Made as the tuples that they are: a named tuple's own constructor takes twice as long.
                corrections += [
                    tuple.__new__(Correction, (need.key, need.rate, claim, share))
                    for need, claim in zip(needs, claims, strict=True)
                ]
        return corrections

    def back(self) -> list[Correction]:
        """Gives everything back, the request itself as well."""
        return [
            Correction(key, rate, claim, 0)
            for needs, claims in ((self.needs, self.claims), *self.top_ups)
            for (key, rate, _), claim in zip(needs, claims, strict=True)
        ]

    def uncovered(self, used: int) -> list[Need]:
        """What a request that took no tokens at all needs for the tokens that it used after all."""
        return self.plan.token_needs(used) if used and not self._parts() else []

    def _parts(self) -> list[tuple[Sequence[Need], Sequence[Claim]]]:
        """The token needs and their claims, part by part; none when tokens are not limited."""
        first = len(self.plan.requests)
        end = first + len(self.plan.tokens)
        if first == end:
            return []
        # The tokens stand right after the requests, when there are any.
        if len(self.needs) > first and self.needs[first].key is self.plan.tokens[0].key:
            return [(self.needs[first:end], self.claims[first:end]), *self.top_ups]
        return [*self.top_ups]


def expired(holds: dict[str, Hold], now_ns: int) -> Iterator[str]:
    """The requests whose lease is over; `holds` is in the order in which leases end."""
    for request_id, hold in holds.items():
        if hold.expires_ns > now_ns:
            return
        yield request_id
