"""The decision whether a request fits, over all of its buckets together, and the correction afterwards.

A request concerns four buckets of its model: requests and tokens, of its organisation and of its project. It
takes from all of them or from none. Tokens are taken in advance from an estimate: the prompt, known exactly, plus
as much output as this organisation lately used with this model, never more than the request allows. `max_tokens`
alone would refuse requests that were going to be short; `settle` corrects the estimate to what was used.

A reservation that is never settled expires after the lease and keeps its estimate charged: what a crashed caller
used is not known, and free tokens must not be the reward for crashing.

Time is an argument, in nanoseconds of a clock that never goes backwards.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from services.ratelimit.gcra import Bucket, Claim, Rate, per_window

Scope = Literal["organization", "project"]
Dimension = Literal["requests", "tokens"]

MINUTE_NS = 60_000_000_000
# A new observation counts an eighth: about the last twenty requests matter.
_LEARNING_WEIGHT = 1 / 8
# Learned estimates kept; the least recently used is forgotten first, which costs only accuracy.
_MAX_EXPECTATIONS = 10_000


class Rates(NamedTuple):
    """The rates of the two buckets that an organisation or a project has for a model."""

    requests: Rate
    tokens: Rate

    @staticmethod
    def per_minute(requests: int, tokens: int) -> "Rates":
        """From limits per minute, each at least 1."""
        return Rates(per_window(requests, MINUTE_NS), per_window(tokens, MINUTE_NS))


class ModelRates(NamedTuple):
    """The rates of one model."""

    organization: Rates
    project: Rates


class Owner(NamedTuple):
    """Whose buckets, and for which model."""

    scope: Scope
    id: str
    model: str


class Demand(NamedTuple):
    """What a request asks for. `max_output_tokens` is the most that all its choices together may have."""

    request_id: str
    organization_id: str
    project_id: str
    model: str
    input_tokens: int
    max_output_tokens: int


class Level(NamedTuple):
    """How full a bucket is. `until_full_ns` is the time until it holds `limit` again."""

    limit: int
    remaining: int
    until_full_ns: int


class Granted(NamedTuple):
    """The request fits; `tokens` were taken. The levels are those of the tighter scope."""

    tokens: int
    requests_level: Level
    tokens_level: Level


class Refused(NamedTuple):
    """The request does not fit and nothing was taken. It names the bucket with the longest wait."""

    owner: Owner
    dimension: Dimension
    limit: int
    used: int
    requested: int
    wait_ns: int | None
    """Time until it fits if nothing else is taken; None when it never will."""

    requests_level: Level
    tokens_level: Level


class AccountState(NamedTuple):
    """How far the buckets of one owner are from full."""

    owner: Owner
    requests_until_full_ns: int
    tokens_until_full_ns: int


@dataclass(slots=True)
class _Account:
    """The buckets of one owner."""

    owner: Owner
    requests: Bucket
    tokens: Bucket

    @property
    def full_ns(self) -> int:
        return max(self.requests.full_ns, self.tokens.full_ns)


_Accounts = tuple[_Account, _Account]
"""The organisation's and the project's."""


class _Shortage(NamedTuple):
    owner: Owner
    dimension: Dimension
    bucket: Bucket
    units: int
    wait_ns: int | None


class _Hold(NamedTuple):
    demand: Demand
    tokens: int
    claims: tuple[tuple[_Account, Claim, Claim], ...]
    """Of each account: the claims on its requests and on its tokens."""

    expires_ns: int


@dataclass(slots=True)
class Expectations:
    """How many output tokens a request probably uses, learned per organisation and model."""

    first_guess: int
    _learned: dict[tuple[str, str], float] = field(default_factory=dict)

    def output_tokens(self, organization_id: str, model: str) -> int:
        return round(self._learned.get((organization_id, model), self.first_guess))

    def learn(self, organization_id: str, model: str, output_tokens: int) -> None:
        """Moves the average towards what one request used. Keeps a bounded number of averages."""
        key = (organization_id, model)
        average = self._learned.pop(key, float(self.first_guess))
        self._learned[key] = average + _LEARNING_WEIGHT * (output_tokens - average)
        if len(self._learned) > _MAX_EXPECTATIONS:
            del self._learned[next(iter(self._learned))]


class Limits:
    """All buckets and open reservations of one machine. Full buckets are no state and are dropped."""

    def __init__(self, rates: Callable[[str], ModelRates], expectations: Expectations, lease_ns: int) -> None:
        self._rates = rates
        self._expectations = expectations
        self._lease_ns = lease_ns
        self._accounts: dict[Owner, _Account] = {}
        self._holds: dict[str, _Hold] = {}

    def reserve(self, demand: Demand, now_ns: int) -> Granted | Refused:
        """Takes one request and the estimated tokens from every bucket, or nothing at all.

        Asked again for a request that is still open, it takes nothing more: a repeated call is one request.
        """
        accounts = (
            self._account(Owner("organization", demand.organization_id, demand.model)),
            self._account(Owner("project", demand.project_id, demand.model)),
        )
        if hold := self._holds.get(demand.request_id):
            return Granted(hold.tokens, *_levels(accounts, now_ns))
        tokens = self._estimate(demand, accounts)
        if refused := _refusal(accounts, tokens, now_ns):
            return refused
        claims = tuple(
            (account, account.requests.take(1, now_ns), account.tokens.take(tokens, now_ns)) for account in accounts
        )
        self._holds[demand.request_id] = _Hold(demand, tokens, claims, now_ns + self._lease_ns)
        return Granted(tokens, *_levels(accounts, now_ns))

    def settle(self, request_id: str, tokens: int, now_ns: int) -> None:
        """Corrects a reservation to the tokens used and ends it. 0 takes the request back as well.

        An unknown or expired reservation is left as it is.
        """
        hold = self._holds.pop(request_id, None)
        if hold is None or hold.expires_ns <= now_ns:
            return
        for account, request_claim, token_claim in hold.claims:
            account.tokens.settle(token_claim, tokens, now_ns)
            if tokens == 0:
                account.requests.settle(request_claim, 0, now_ns)
        if tokens > 0:
            demand = hold.demand
            self._expectations.learn(demand.organization_id, demand.model, max(0, tokens - demand.input_tokens))

    def sweep(self, now_ns: int) -> int:
        """Forgets expired reservations, and accounts that have been full for a whole lease: none is open on them.

        Returns how many of both are left.
        """
        for request_id in [key for key, hold in self._holds.items() if hold.expires_ns <= now_ns]:
            del self._holds[request_id]
        horizon_ns = now_ns - self._lease_ns
        for owner in [key for key, account in self._accounts.items() if account.full_ns <= horizon_ns]:
            del self._accounts[owner]
        return len(self._holds) + len(self._accounts)

    def states(self, now_ns: int) -> Iterator[AccountState]:
        """Every account that is not full."""
        for owner, account in self._accounts.items():
            if account.full_ns > now_ns:
                yield AccountState(owner, account.requests.until_full_ns(now_ns), account.tokens.until_full_ns(now_ns))

    def restore(self, state: AccountState, elapsed_ns: int, now_ns: int) -> None:
        """Puts an account back as `states` gave it `elapsed_ns` ago."""
        account = self._account(state.owner)
        account.requests.full_ns = now_ns + state.requests_until_full_ns - elapsed_ns
        account.tokens.full_ns = now_ns + state.tokens_until_full_ns - elapsed_ns

    def _account(self, owner: Owner) -> _Account:
        account = self._accounts.get(owner)
        if account is None:
            rates: Rates = getattr(self._rates(owner.model), owner.scope)
            account = self._accounts[owner] = _Account(owner, Bucket(rates.requests), Bucket(rates.tokens))
        return account

    def _estimate(self, demand: Demand, accounts: _Accounts) -> int:
        expected = self._expectations.output_tokens(demand.organization_id, demand.model)
        tokens = demand.input_tokens + min(demand.max_output_tokens, expected)
        # Only the prompt is certain, so only the prompt may be too large; the rest becomes a debt if it is used.
        organization, project = accounts
        largest = min(organization.tokens.rate.units, project.tokens.rate.units)
        return max(demand.input_tokens, min(tokens, largest))


def _refusal(accounts: _Accounts, tokens: int, now_ns: int) -> Refused | None:
    """Names the bucket that makes the request wait longest, forever before all. None when it fits everywhere."""
    worst: _Shortage | None = None
    for account in accounts:
        for dimension, bucket, units in _needs(account, tokens):
            wait_ns = bucket.wait_ns(units, now_ns)
            if wait_ns is None:
                return _refused(_Shortage(account.owner, dimension, bucket, units, None), accounts, now_ns)
            if wait_ns > (worst.wait_ns or 0 if worst else 0):
                worst = _Shortage(account.owner, dimension, bucket, units, wait_ns)
    return _refused(worst, accounts, now_ns) if worst else None


def _needs(account: _Account, tokens: int) -> tuple[tuple[Dimension, Bucket, int], ...]:
    return ("requests", account.requests, 1), ("tokens", account.tokens, tokens)


def _refused(shortage: _Shortage, accounts: _Accounts, now_ns: int) -> Refused:
    owner, dimension, bucket, units, wait_ns = shortage
    limit = bucket.rate.units
    used = limit - bucket.remaining(now_ns)
    return Refused(owner, dimension, limit, used, units, wait_ns, *_levels(accounts, now_ns))


def _levels(accounts: _Accounts, now_ns: int) -> tuple[Level, Level]:
    """Of the request buckets and of the token buckets, the one with less remaining."""
    organization, project = accounts
    return (
        _tighter(organization.requests, project.requests, now_ns),
        _tighter(organization.tokens, project.tokens, now_ns),
    )


def _tighter(one: Bucket, other: Bucket, now_ns: int) -> Level:
    remaining, other_remaining = one.remaining(now_ns), other.remaining(now_ns)
    if other_remaining < remaining:
        one, remaining = other, other_remaining
    return Level(one.rate.units, remaining, one.until_full_ns(now_ns))
