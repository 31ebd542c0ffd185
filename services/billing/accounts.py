"""What one process knows of an organisation's money: its purses, who waits for more, and what is held for whom."""

import asyncio
from typing import Final

from services.billing.prices import Tariff
from services.billing.purse import Bound, Purse
from services.faults import Fault, RateLimited
from services.pricing.cost import MILLION

# Output tokens by which a request is extended: what is expected of it, within these.
LEAST_STEP: Final = 64
MOST_STEP: Final = 1024

# Who cannot be held what is expected may have less, but for an answer of so many tokens at least.
LEAST_TOKENS: Final = 32

QUOTA: Final = "You exceeded your current quota, please check your plan and billing details."


class Account:
    """What this process knows of one organisation's money."""

    def __init__(self, organization_id: str) -> None:
        self.organization_id = organization_id
        self.purse = Purse()
        self.projects: dict[str, Purse] = {}
        # For requests of no project.
        self.nobody = Purse()
        self.nobody.bounded = False
        self.waiting: list[Want] = []
        # Fills the purses; there is at most one.
        self.filling: asyncio.Task[None] | None = None
        # True: what is left is to be returned; bounds have changed since they were read.
        self.returning = False
        self.changed = False
        # Points of the clock: the leases end, a refusal is no longer repeated, leases were last taken.
        self.expires_s = 0.0
        self.refused_until_s = 0.0
        self.filled_s = 0.0
        # The month that the bounds were read for, and when it ends.
        self.month_ends_ms = 0
        # What is told to whom is refused, by project.
        self.bounds: dict[str, Bound] = {}
        # How many rows the leases have, and whether others have any.
        self.rows = 0
        self.shared = False
        # The worst case of a request of late.
        self.largest = 0
        # True when money was asked for since the last look.
        self.active = True
        # Set when a request has ended, for those who wait for what it gives back.
        self.returned = asyncio.Event()

    def project(self, project_id: str) -> Purse:
        purse = self.projects.get(project_id) if project_id else self.nobody
        if purse is None:
            purse = self.projects[project_id] = Purse()
        return purse

    @property
    def has_left(self) -> bool:
        return any(purse.bounded and purse.left > 0 for _, purse in self.purses())

    def purses(self) -> list[tuple[str, Purse]]:
        return [("", self.purse), *self.projects.items()]


class Hold:
    """What is held for one request."""

    __slots__ = (
        "account",
        "amount",
        "excess",
        "expires_s",
        "max_tokens",
        "output_tokens",
        "project_id",
        "purse",
        "request_id",
        "step",
        "tariff",
    )

    def __init__(
        self,
        request_id: str,
        project_id: str,
        account: Account,
        *,
        tariff: Tariff,
        max_tokens: int,
        step: int,
        expires_s: float,
    ) -> None:
        self.request_id = request_id
        self.account = account
        self.project_id = project_id
        self.purse = account.project(project_id)
        self.tariff = tariff
        self.max_tokens = max_tokens
        # Output tokens by which it is extended.
        self.step = step
        self.expires_s = expires_s
        self.amount = 0
        self.excess = 0
        # The output tokens that the amount pays for.
        self.output_tokens = 0

    def settle(self, cost: int) -> None:
        """The request has ended and cost so much: the rest comes back."""
        account = self.account
        account.purse.settle(self.amount, self.excess, cost)
        self.purse.settle(self.amount, self.excess, cost)
        if account.waiting:
            account.returned.set()


class Want:
    """An amount that is to be held for a request, or in addition."""

    __slots__ = ("amount", "done", "extra", "hold", "is_new", "output_tokens", "patient_until_s")

    def __init__(self, hold: Hold, amount: int, extra: int, output_tokens: int, *, is_new: bool) -> None:
        self.hold = hold
        # By then, of the loop's clock, it is decided.
        self.patient_until_s = 0.0
        # `amount` pays for `output_tokens`, together with `extra` for all that there may be.
        self.amount = amount
        self.extra = extra
        self.output_tokens = output_tokens
        self.is_new = is_new
        self.done: asyncio.Future[None] | None = None

    def fail(self, fault: Fault) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(fault)

    @property
    def may_be_covered(self) -> bool:
        """Whether it would be, if all requests that run gave back everything."""
        return self.hold.account.shared or all(
            not purse.bounded or self.amount <= max(0, purse.left) + purse.room + purse.held
            for purse in (self.hold.account.purse, self.hold.purse)
        )

    def shrink(self) -> bool:
        """Wants no more than there is. False when that is too little for an answer."""
        purses = (self.hold.account.purse, self.hold.purse)
        there = min([max(0, purse.left) + purse.room for purse in purses if purse.bounded], default=0)
        rate = self.hold.tariff.output
        if not rate:
            return False
        had = 0 if self.is_new else self.hold.output_tokens
        # What the prompt costs.
        base = self.amount - self.hold.tariff.tokens(0, self.output_tokens - had)
        tokens = (there - base - 1) * MILLION // rate
        if tokens < LEAST_TOKENS or had + tokens >= self.output_tokens:
            return False
        amount = base + self.hold.tariff.tokens(0, tokens)
        self.extra += self.amount - amount
        self.amount, self.output_tokens = amount, had + tokens
        return True

    def purse_short(self) -> str | None:
        """The project ("" for the organisation) that nobody had enough for when its bounds were read."""
        if self.hold.account.purse.is_short_of(self.amount):
            return ""
        return self.hold.project_id if self.hold.purse.is_short_of(self.amount) else None


def refusal(account: Account, project_id: str) -> RateLimited:
    bound = account.bounds[project_id]
    return RateLimited("insufficient_quota", f"{QUOTA} What is left of {bound.name} does not cover this request.")
