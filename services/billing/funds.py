"""Holds money for requests, out of purses that leases fill: most holds are two subtractions and no I/O.

Kept true, for every bound of an organisation (its spend limit, the cap of its usage tier, its credits when it pays
before) and of a project (its spend limit): what is spent and all live leases together do not exceed it, and a hold
is admitted only out of a lease. Nobody is refused because somebody else has money lying idle: who is short asks the
others to give back what they do not need before he refuses. A lease that could not be renewed in time is not spent
from: others may have it by then.

All methods belong to one event loop. Whatever is written of a lease is worked out while the organisation's lock in the
database is held, without an await between, and what is given up is given up before it is written, so that what the
database has is never less than what this process believes to have.
"""

import asyncio
import sys
import time
from collections import Counter as Sums
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, date, datetime
from typing import Final

from prometheus_client import Counter, Gauge

from modelplane.billing.v1.billing_pb2 import ExtendRequest, HoldRequest
from modelplane.usage.v1.usage_pb2 import Usage
from services import telemetry
from services.billing.accounts import LEAST_STEP, MOST_STEP, Account, Hold, Want, refusal
from services.billing.prices import Prices, Tariff, not_priced
from services.billing.purse import Bound, Need, Purse, admit, ahead, pace, size, tightest
from services.billing.settings import BillingSettings
from services.billing.store.funds import FundsStore, Standing, Terms
from services.billing.store.prices import Connection
from services.billing.store.usage import Cost
from services.billing.tasks import end
from services.faults import Fault, Internal, InvalidRequest, Unavailable
from services.pricing.cost import Unpriced
from services.tally import Tally

log = telemetry.logger(__name__)

HOLDS = Tally(
    "modelplane_holds",
    "Requests for which money was asked, by what came of it.",
    ["outcome"],
    known=("free", "whole", "part", "refused", "unpriced", "unavailable", "extended", "cut"),
)
LEASES = Counter("modelplane_leases_renewed", "Leases of money that were taken, changed or renewed.")
HELD = Gauge("modelplane_held_nanodollars", "Money on hold for requests that run.")

CENT: Final = 10**7
DOLLAR: Final = 10**9
# How long a refusal is repeated without asking the database, and how long an outage.
REFUSED_S: Final = 1.0
AWAY_S: Final = 1.0
# How long the others are given to return what they do not need, before it is asked for again and then refused.
PLEAS_S: Final = (0.03, 0.1)
# While requests wait for others to end, how often the database is asked what there is.
LOOK_S: Final = 0.2
# A purse that runs low near its bound is not filled more often.
REFILL_S: Final = 0.2


class Funds:
    """Holds of one process."""

    def __init__(
        self,
        store: FundsStore,
        prices: Prices,
        settings: BillingSettings,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now_ms` tells the date, `now_s` how time passes."""
        self._store = store
        self._prices = prices
        self._settings = settings
        self._now_ms = now_ms
        self._now_s = now_s
        self._caps = [int(cap) * DOLLAR for cap in settings.tier_caps.split(",")]
        self._accounts: dict[str, Account] = {}
        # The oldest first.
        self._holds: dict[str, Hold] = {}
        self._away_until_s = 0.0
        HELD.set_function(lambda: self.held_nanodollars)

    @property
    def held_nanodollars(self) -> int:
        """On hold for requests that run."""
        return sum(account.purse.held for account in self._accounts.values())

    # ------------------------------------------------------------------------------------------------ requests

    async def hold(self, request: HoldRequest) -> int:
        """The output tokens that what is held pays for. Faults as the contract has them."""
        request_id = request.request_id
        held = self._holds.get(request_id)
        if held is not None:
            return held.output_tokens
        if not request_id:
            raise InvalidRequest("invalid_value", "A hold needs a request id.")
        try:
            tariff = self._prices.tariff(request.model, request.service_tier, request.batch, self._now_ms())
            if tariff.free:
                HOLDS.counts["free"] += 1
                return request.max_output_tokens
            now_s = self._now_s()
            hold, amount, extra, expected = self._wanted(request_id, request, tariff, now_s)
            if not self._take_at_once(hold, amount, extra, expected, now_s, is_new=True):
                await self._wait(Want(hold, amount, extra, expected, is_new=True))
        except Fault as fault:
            outcome = {"model_not_priced": "unpriced", "insufficient_quota": "refused"}.get(fault.reason)
            HOLDS.counts[outcome or "unavailable"] += 1
            raise
        HOLDS.counts["part" if hold.output_tokens < hold.max_tokens else "whole"] += 1
        return hold.output_tokens

    async def extend(self, request: ExtendRequest) -> int:
        """As `hold`, for a request that has come near to what is held for it."""
        hold = self._holds.get(request.request_id)
        if hold is None:
            return sys.maxsize
        hold.account.active = True
        tokens = min(hold.max_tokens, max(request.output_tokens, hold.output_tokens) + hold.step)
        added = tokens - hold.output_tokens
        if added > 0:
            amount = hold.tariff.tokens(0, added)
            extra = hold.tariff.tokens(0, hold.max_tokens - hold.output_tokens) - amount
            try:
                if not self._take_at_once(hold, amount, extra, tokens, self._now_s(), is_new=False):
                    await self._wait(Want(hold, amount, extra, tokens, is_new=False))
            except Fault:
                HOLDS.counts["cut"] += 1
                raise
            HOLDS.counts["extended"] += 1
        return hold.output_tokens

    def release(self, request_id: str) -> None:
        """Gives back what is held for a request, if anything is."""
        hold = self._holds.pop(request_id, None)
        if hold is not None:
            hold.settle(0)

    def settle(self, usage: Usage) -> None:
        """Ends what is held for a request by what it has cost."""
        cost = self._prices.total(usage)
        hold = self._holds.pop(usage.request_id, None)
        if hold is not None:
            hold.settle(cost)
        elif cost and (account := self._accounts.get(usage.attribution.organization_id)) is not None:
            account.purse.settle(0, 0, cost)
            account.project(usage.attribution.project_id).settle(0, 0, cost)

    def _wanted(
        self, request_id: str, request: HoldRequest, tariff: Tariff, now_s: float
    ) -> tuple[Hold, int, int, int]:
        """Who wants, the amount, what the worst case costs beyond it, and the output tokens that the amount buys."""
        who = request.attribution
        organization_id = who.organization_id
        if not organization_id:
            raise InvalidRequest("invalid_value", "A hold needs an organization.")
        account = self._accounts.get(organization_id)
        if account is None:
            account = self._accounts[organization_id] = Account(organization_id)
        account.active = True
        most = request.max_output_tokens
        expected = min(request.expected_output_tokens, most)
        try:
            amount = tariff.tokens(request.input_tokens, expected)
            extra = tariff.tokens(0, most - expected)
            if request.HasField("also"):
                amount += tariff.also(request.also)
        except Unpriced as error:
            raise not_priced(request.model, str(error)) from error
        account.largest = max(account.largest, amount + extra)
        step = min(max(expected, LEAST_STEP), MOST_STEP)
        expires_s = now_s + self._settings.hold_s
        hold = Hold(request_id, who.project_id, account, tariff=tariff, max_tokens=most, step=step, expires_s=expires_s)
        return hold, amount, extra, expected

    def _take_at_once(
        self, hold: Hold, amount: int, extra: int, output_tokens: int, now_s: float, *, is_new: bool
    ) -> bool:
        """As `_take`, while the leases last; sees to it that the purses do not run empty."""
        account = hold.account
        if now_s >= account.expires_s or not self._take(hold, amount, extra, output_tokens, is_new=is_new):
            return False
        if (account.purse.runs_low or hold.purse.runs_low) and now_s >= account.filled_s + REFILL_S:
            self._fill(account)
        return True

    def _take(self, hold: Hold, amount: int, extra: int, output_tokens: int, *, is_new: bool) -> bool:
        """Takes what is wanted out of both purses, and the worst case where it is to spare."""
        if is_new and hold.request_id in self._holds:
            return True
        organization, project = hold.account.purse, hold.purse
        if organization.spares(amount, extra) and project.spares(amount, extra):
            amount, hold.output_tokens = amount + extra, hold.max_tokens
        elif organization.affords(amount) and project.affords(amount):
            extra, hold.output_tokens = 0, output_tokens
        else:
            return False
        if is_new:
            self._holds[hold.request_id] = hold
        elif hold.request_id not in self._holds:
            # It has ended meanwhile.
            return True
        organization.take(amount, extra)
        project.take(amount, extra)
        hold.amount += amount
        hold.excess += extra
        return True

    async def _wait(self, want: Want) -> None:
        """Takes what is wanted when more was leased. Faults: insufficient_quota, database_unavailable."""
        account, now_s = want.hold.account, self._now_s()
        if now_s < account.refused_until_s and self._now_ms() < account.month_ends_ms:
            short = want.purse_short()
            if short is not None and not want.may_be_covered and not want.shrink():
                raise refusal(account, short)
        if now_s < self._away_until_s:
            raise Unavailable("database_unavailable", "The database cannot be reached. Try again shortly.")
        loop = asyncio.get_running_loop()
        if want.is_new:
            # Who runs already does not wait: neither does the engine.
            want.patient_until_s = loop.time() + self._settings.patience_s
        want.done = loop.create_future()
        account.waiting.append(want)
        self._fill(account)
        try:
            await want.done
        finally:
            if want in account.waiting:
                account.waiting.remove(want)

    # ------------------------------------------------------------------------------------------------- leases

    def _fill(self, account: Account) -> None:
        if account.filling is None and (account.waiting or self._now_s() >= self._away_until_s):
            account.filling = asyncio.create_task(self._keep_filling(account), name="billing lease")

    async def _keep_filling(self, account: Account) -> None:
        """Leases until nobody waits: everybody has got his money, or was refused."""
        pleas = 0
        try:
            while True:
                account.changed = False
                await self._lease(account)
                if account.changed:
                    continue
                short = [want for want in account.waiting if want.purse_short() is not None]
                if short and pleas < len(PLEAS_S) and account.shared:
                    await self._store.plead(account.organization_id)
                    await asyncio.sleep(PLEAS_S[pleas])
                    pleas += 1
                elif short:
                    await self._wait_or_refuse(account, short)
                if not (account.waiting or account.returning or account.changed):
                    return
        except Unavailable as fault:
            self._away_until_s = self._now_s() + AWAY_S
            log.warning("money cannot be leased", organization_id=account.organization_id, error=fault)
            self._fail_all(account, Unavailable, fault.reason, fault.message)
        except Exception as error:
            log.error("money cannot be leased", organization_id=account.organization_id, exc_info=error)
            self._fail_all(account, Internal, "internal", "The server had an error while holding money.")
        finally:
            account.filling = None

    async def _wait_or_refuse(self, account: Account, short: Sequence[Want]) -> None:
        """Gives requests that run some time to give back what they did not use. Who cannot be helped by that gets what
        there is, or is refused."""
        loop = asyncio.get_running_loop()
        waiting = [want for want in short if want.may_be_covered and loop.time() < want.patient_until_s]
        for want in short:
            if want in waiting or want.shrink():
                continue
            account.refused_until_s = self._now_s() + REFUSED_S
            want.fail(refusal(account, want.purse_short() or ""))
            account.waiting.remove(want)
        look_again_s = loop.time() + LOOK_S
        while waiting and account.waiting == waiting and loop.time() < look_again_s:
            account.returned.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_again_s):
                    await account.returned.wait()
            self._serve(account)
            waiting = [want for want in waiting if want in account.waiting]

    def _serve(self, account: Account) -> None:
        """Gives those who wait what there is, in their order."""
        for want in account.waiting[:]:
            done = want.done
            assert done is not None
            if done.done() or self._take(want.hold, want.amount, want.extra, want.output_tokens, is_new=want.is_new):
                account.waiting.remove(want)
                if not done.done():
                    done.set_result(None)

    def _fail_all(self, account: Account, kind: type[Fault], reason: str, message: str) -> None:
        account.returning = account.changed = False
        for want in account.waiting:
            want.fail(kind(reason, message))
        account.waiting.clear()

    async def _lease(self, account: Account) -> None:
        """One transaction: reads the bounds, leases what is needed, and gives it to those who wait."""
        started_s = self._now_s()
        month, month_ends_ms = month_of(self._now_ms())
        written = False
        try:
            async with self._store.locked(account.organization_id) as records:
                terms, standings = await records.read(list(account.projects), month)
                leases = self._resize(account, terms, standings, started_s)
                await records.lease(leases)
            written = True
        finally:
            for _, purse in account.purses():
                purse.settle_lease(written)
        LEASES.inc(len(leases))
        account.rows = len(leases)
        account.expires_s = started_s + self._settings.lease_s
        account.filled_s = started_s
        account.month_ends_ms = month_ends_ms
        self._serve(account)

    def _resize(self, account: Account, terms: Terms, standings: Sequence[Standing], now_s: float) -> dict[str, int]:
        """What is leased from now on, by project. Sizes the purses."""
        free: dict[str, int] = {}
        account.shared = False
        for standing in standings:
            purse = account.purse if not standing.project_id else account.project(standing.project_id)
            bound = self._bound(terms, standing)
            purse.bounded = bound is not None
            purse.read = True
            if bound is not None:
                account.bounds[standing.project_id] = bound
                account.shared |= standing.leased > 0 or purse.undrained > 0
                free[standing.project_id] = bound.nanodollars - standing.leased - purse.obligations
        needed = admit([Need(want.hold.project_id, want.amount) for want in account.waiting], free[""], free)
        elapsed_s = now_s - account.filled_s
        leases: dict[str, int] = {}
        for project_id, most in free.items():
            purse = account.projects[project_id] if project_id else account.purse
            purse.pace, purse.used = pace(purse.pace, purse.used, elapsed_s), 0
            soon = int(purse.pace * self._settings.lease_s)
            more = 0 if account.returning else ahead(account.largest, purse.held, soon)
            if lease := purse.resize(size(most, needed.get(project_id, 0), more), most):
                leases[project_id] = lease
        account.returning = False
        account.largest //= 2
        return leases

    def _bound(self, terms: Terms, standing: Standing) -> Bound | None:
        """What may still be spent and leased, by all processes together."""
        bounds = []
        whose = "project" if standing.project_id else "organization"
        if standing.threshold_cents is not None:
            bounds.append(Bound(f"the {whose}'s monthly spend limit", standing.threshold_cents * CENT - standing.spent))
        if not standing.project_id:
            # An organisation that is not in the database yet is as good as a new one.
            cap = self._caps[terms.usage_tier or 0]
            bounds.append(Bound("the monthly cap of the organization's usage tier", cap - standing.spent))
            if terms.credits is not None:
                bounds.append(Bound("the organization's prepaid credits", terms.credits))
        return tightest(bounds) if bounds else None

    # ------------------------------------------------------------------------------------------------ the drain

    async def drained(self, connection: Connection, costs: Iterable[Cost]) -> None:
        """Writes, in the drain's transaction, what is leased when the ledger has taken up what records of this
        process have cost: all records that were settled here, whether they were new to the ledger or not."""
        leases: dict[tuple[str, str], int] = {}
        for (organization_id, project_id), amount in _sums(costs).items():
            purse = self._purse(organization_id, project_id)
            if purse is not None and purse.bounded and purse.lease + purse.pending:
                leases[organization_id, project_id] = purse.leased_after(amount)
        await self._store.write(connection, leases)

    def committed(self, costs: Iterable[Cost]) -> None:
        """The transaction that `drained` was called in is committed."""
        for (organization_id, project_id), amount in _sums(costs).items():
            purse = self._purse(organization_id, project_id)
            if purse is not None:
                purse.drain(amount)

    def _purse(self, organization_id: str, project_id: str) -> Purse | None:
        account = self._accounts.get(organization_id)
        if account is None:
            return None
        return account.projects.get(project_id) if project_id else account.purse

    # ----------------------------------------------------------------------------------------------- the clock

    async def keep_informed(self) -> None:
        """Hears of bounds that change and of others who need money, for ever."""
        while True:
            try:
                async with aclosing(self._store.changes()) as changes:
                    async for change in changes:
                        self._hear(change)
            except Exception as error:
                log.warning("changes of funds cannot be heard", exc_info=error)
            await asyncio.sleep(AWAY_S)

    def _hear(self, change: tuple[str, str] | None) -> None:
        if change is None:
            for account in self._accounts.values():
                self._read_again(account)
            return
        organization_id, holder = change
        found = self._accounts.get(organization_id)
        if found is None or holder == self._store.holder:
            return
        if not holder:
            self._read_again(found)
        elif found.has_left:
            found.returning = True
            self._fill(found)

    def _read_again(self, account: Account) -> None:
        account.refused_until_s = 0.0
        account.changed = True
        self._fill(account)

    async def keep_renewing(self) -> None:
        """Renews leases, ends holds that nobody ends and returns what lies idle, for ever."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 4)
            await self.renew()

    async def renew(self) -> None:
        """One round of `keep_renewing`."""
        now_s = self._now_s()
        while self._holds and (hold := next(iter(self._holds.values()))).expires_s <= now_s:
            log.warning("a request has not ended in time", request_id=hold.request_id)
            self.release(hold.request_id)
        for account in list(self._accounts.values()):
            self._rest(account)
        if not self._accounts:
            return
        try:
            renewed = Sums(await self._store.renew())
        except Unavailable as fault:
            log.warning("leases not renewed", error=fault)
            return
        LEASES.inc(renewed.total())
        for organization_id, rows in renewed.items():
            found = self._accounts.get(organization_id)
            if found is not None and rows >= found.rows and found.filling is None:
                found.expires_s = max(found.expires_s, now_s + self._settings.lease_s)

    def _rest(self, account: Account) -> None:
        """Returns what an organisation without requests has left, and then forgets it."""
        if account.active or account.filling is not None or account.waiting:
            account.active = False
        elif account.has_left:
            account.returning = True
            self._fill(account)
        elif not any(purse.obligations for _, purse in account.purses()):
            del self._accounts[account.organization_id]

    async def close(self) -> None:
        """Returns everything but what the ledger's sums do not have yet."""
        filling = [account.filling for account in self._accounts.values() if account.filling is not None]
        await end(filling)
        for account in self._accounts.values():
            self._fail_all(account, Unavailable, "shutting_down", "Billing is shutting down.")
        owing = [account.organization_id for account in self._accounts.values() if account.purse.undrained]
        try:
            await self._store.return_all(owing)
        except Unavailable as fault:
            log.warning("leases end by themselves", error=fault)


def month_of(now_ms: int) -> tuple[date, int]:
    """The first day of a time's month, UTC, and when the month ends, in Unix milliseconds."""
    first = datetime.fromtimestamp(now_ms / 1000, UTC).date().replace(day=1)
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first, int(datetime(after.year, after.month, 1, tzinfo=UTC).timestamp() * 1000)


def _sums(costs: Iterable[Cost]) -> Sums[tuple[str, str]]:
    """By organisation and project, an empty project for all of the organisation."""
    sums: Sums[tuple[str, str]] = Sums()
    for organization_id, project_id, nanodollars in costs:
        sums[organization_id, ""] += nanodollars
        if project_id:
            sums[organization_id, project_id] += nanodollars
    return sums
