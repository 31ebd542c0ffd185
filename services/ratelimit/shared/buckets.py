"""The buckets of many gateways: decided in Valkey, or here on a lease from there.

A decision is made on what this gateway has leased when that covers every bucket, and in one call otherwise; a
call takes along the corrections that are due, and brings back a lease when there is demand for one. A refusal is
remembered for as long as a lease would be, so that clients who hammer at a limit do not hammer at Valkey. Without
Valkey, decisions are made on this gateway's allowance. Nothing here raises for any of that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from prometheus_client import Counter

from services import telemetry
from services.ratelimit.buckets import BucketKey, Clock, Correction, Level, Need, Short, Taken
from services.ratelimit.gcra import Bucket, Claim, Rate
from services.ratelimit.shared.connection import Unreachable
from services.ratelimit.shared.function import Ask, Reply, Request
from services.ratelimit.shared.leases import Demand, Lease
from services.ratelimit.shared.link import Link
from services.ratelimit.shared.outage import Allowance, is_own
from services.ratelimit.shared.settings import ValkeySettings

log = telemetry.logger(__name__)

LOCAL = Counter(
    "modelplane_ratelimit_local_decisions_total",
    "Decisions made without asking Valkey: on a lease, by a refusal that still holds, or because it is out of reach.",
    ("reason",),
)
# Corrections that one call carries, and that are kept for later at most; what is over stays charged.
_BATCH: Final = 200
_MOST_DUE: Final = 50_000
# Beyond its time, for a gateway to say what it handed out of a lease before it is charged in full.
_GRACE_US: Final = 1_000_000
# What is known of a bucket is forgotten when nobody has asked for it for so long.
_IDLE_NS: Final = 10_000_000_000

_Claims = tuple[Claim, ...]


class _Line:
    """What this gateway knows of one shared bucket, and what it holds of it."""

    __slots__ = ("ahead_ns", "asking", "demand", "lease", "refused_units", "refused_until_ns", "seen")

    def __init__(self, span_ns: int) -> None:
        self.demand = Demand(span_ns)
        self.lease: Lease | None = None
        self.asking = 0
        """The holder in whose name a lease was asked for that is not here yet. Until then it is not told of again."""

        self.seen = Bucket()
        """As it was after the last call, all leases counted as taken, in its own time: `ahead_ns` ahead of ours."""

        self.ahead_ns = 0
        self.refused_until_ns = 0
        self.refused_units = 0

    def level(self, rate: Rate, now_ns: int) -> Level:
        """What is left by the last call. What is leased here can still be had here."""
        until_full_ns = max(0, self.seen.full_ns - self.ahead_ns - now_ns - self.left * rate.interval_ns)
        return Level(rate.units, max(0, rate.units - -(-until_full_ns // rate.interval_ns)), until_full_ns)

    def wait_ns(self, rate: Rate, units: int, now_ns: int) -> int | None:
        """As `Bucket.wait_ns`, by the last call."""
        if units > rate.units:
            return None
        return self.seen.wait_ns(rate, max(0, units - self.left), now_ns + self.ahead_ns)

    @property
    def left(self) -> int:
        return self.lease.left if self.lease is not None else 0


class _Sent(NamedTuple):
    """A call that is under way."""

    asks: tuple[Ask, ...]
    lines: Sequence[_Line]
    owns: tuple[bool, ...]
    """Of each line, whether this call settles which lease it has."""

    told: tuple[int, ...]
    """Of each line, the units that it says were handed out."""

    holder: int
    asked_ns: int
    forced: bool


class SharedBuckets:
    """`Buckets` over Valkey. Made by `open_shared`."""

    def __init__(self, settings: ValkeySettings, link: Link, clock: Clock) -> None:
        self._span_ns = settings.lease_ms * 1_000_000
        self._lease_us = settings.lease_ms * 1_000 + _GRACE_US
        self._share = settings.lease_share
        self._link = link
        self._clock = clock
        self._allowance = Allowance(settings.outage_share)
        self._lines: dict[BucketKey, _Line] = {}
        self._leased: dict[BucketKey, _Line] = {}
        self._due: dict[str, list[Correction]] = {}
        self._due_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_lease = LOCAL.labels("lease")
        self._on_refusal = LOCAL.labels("refusal")
        self._on_outage = LOCAL.labels("outage")

    async def take(self, needs: Sequence[Need], /) -> Taken | Short:
        """On leases if they cover it, else by what was refused a moment ago, by Valkey, or by the allowance."""
        now_ns = self._clock()
        lines = self._note(needs, now_ns)
        if (claims := self._hand_out(needs, lines, now_ns)) is not None:
            return Taken(claims, _levels(needs, lines, now_ns))
        if (short := self._known_short(needs, lines, now_ns)) is not None:
            self._on_refusal.inc()
            return short
        try:
            fits, claims = await self._ask(needs, lines, forced=False)
        except Unreachable:
            self._on_outage.inc()
            return self._allowance.take(needs, self._clock())
        now_ns = self._clock()
        if fits:
            return Taken(claims, _levels(needs, lines, now_ns))
        return _shortage(needs, lines, now_ns) or Short(0, 1, _levels(needs, lines, now_ns))

    async def extend(self, needs: Sequence[Need], /) -> tuple[Claim, ...]:
        now_ns = self._clock()
        lines = self._note(needs, now_ns)
        if (claims := self._hand_out(needs, lines, now_ns)) is not None:
            return claims
        try:
            _, claims = await self._ask(needs, lines, forced=True)
        except Unreachable:
            self._on_outage.inc()
            return self._allowance.extend(needs, self._clock())
        return claims

    async def settle(self, corrections: Sequence[Correction], /) -> None:
        for correction in corrections:
            if is_own(correction.claim):
                self._allowance.settle(correction, self._clock())
                continue
            self._owe(correction)
            line = self._lines.get(correction.key)
            if line is not None and correction.used < correction.claim.units:
                line.refused_until_ns = 0

    def tend(self) -> None:
        """What is due: corrections are sent, leases that have had their time are ended. To be called often."""
        self._link.watch()
        ended = self._ended(self._clock() - self._span_ns)
        if not self._link.is_open:
            return
        for organization_id in {*self._due, *ended}:
            self._start(self._send_due(self._collect(organization_id), ended.get(organization_id, [])))
            while batch := self._collect(organization_id):
                self._start(self._send_due(batch, []))

    def sweep(self) -> None:
        """Forgets what nobody asks for."""
        now_ns = self._clock()
        self._allowance.sweep(now_ns)
        oldest_ns = now_ns - _IDLE_NS
        for key, line in list(self._lines.items()):
            if line.demand.started_ns < oldest_ns and line.lease is None:
                del self._lines[key]

    async def close(self) -> None:
        """Ends every lease and sends every correction, as far as Valkey takes them."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._span_ns = 0
        self.tend()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _note(self, needs: Sequence[Need], now_ns: int) -> list[_Line]:
        lines = []
        for key, _, units in needs:
            line = self._lines.get(key)
            if line is None:
                line = self._lines[key] = _Line(self._span_ns)
            line.demand.note(units, now_ns)
            lines.append(line)
        return lines

    def _hand_out(self, needs: Sequence[Need], lines: Sequence[_Line], now_ns: int) -> tuple[Claim, ...] | None:
        """Serves the needs from leases, None when one of them is not covered."""
        tired_ns = now_ns - self._span_ns // 2
        oldest_ns = now_ns - self._span_ns
        leases = []
        tired = False
        for (_, rate, units), line in zip(needs, lines, strict=True):
            lease = line.lease
            if lease is None or lease.left < units or lease.asked_ns < oldest_ns or lease.rate != rate:
                return None
            if lease.left - units < lease.low or lease.asked_ns < tired_ns:
                tired = True
            leases.append(lease)
        claims = tuple([lease.hand_out(need.units) for lease, need in zip(leases, needs, strict=True)])
        self._on_lease.inc()
        if tired and self._link.is_open and not any(line.asking == self._link.holder for line in lines):
            self._start(self._renew(self._renewal(needs, lines)))
        return claims

    def _known_short(self, needs: Sequence[Need], lines: Sequence[_Line], now_ns: int) -> Short | None:
        """A refusal that needs no asking: it never fits, or as much was refused a moment ago and still would be."""
        for (_, rate, units), line in zip(needs, lines, strict=True):
            if units > rate.units or (line.refused_until_ns > now_ns and units >= line.refused_units):
                return _shortage(needs, lines, now_ns)
        return None

    async def _ask(self, needs: Sequence[Need], lines: Sequence[_Line], *, forced: bool) -> tuple[bool, _Claims]:
        """Asks Valkey for what the leases do not cover. Returns whether it fits, and the claims if it was taken."""
        holder = self._link.holder
        asks, owns, told = [], [], []
        for need, line in zip(needs, lines, strict=True):
            if line.asking == holder:
                asks.append(Ask(need))
                owns.append(False)
                told.append(0)
                continue
            # Nothing more is handed out of the old lease, so that it ends with this call.
            handed_out = line.lease.handed_out if line.lease is not None and line.lease.holder == holder else 0
            handed_out_ns = line.lease.handed_out_ns if handed_out and line.lease is not None else 0
            line.lease = None
            self._leased.pop(need.key, None)
            asks.append(Ask(need, line.demand.lease_units(), handed_out_ns, keep=False))
            owns.append(True)
            told.append(handed_out)
            line.asking = holder
        sent = _Sent(tuple(asks), lines, tuple(owns), tuple(told), holder, self._clock(), forced)
        reply = await self._send(sent, self._collect(_organization(needs[0].key)))
        return reply.fits, self._learn(sent, reply)

    def _renewal(self, needs: Sequence[Need], lines: Sequence[_Line]) -> _Sent:
        """Asks for more while the old leases are still used."""
        holder = self._link.holder
        asks, told = [], []
        for need, line in zip(needs, lines, strict=True):
            own = line.lease if line.lease is not None and line.lease.holder == holder else None
            asks.append(Ask(need._replace(units=0), line.demand.lease_units(), own.handed_out_ns if own else 0))
            told.append(own.handed_out if own else 0)
            line.asking = holder
        return _Sent(tuple(asks), lines, (True,) * len(asks), tuple(told), holder, self._clock(), False)

    async def _renew(self, sent: _Sent) -> None:
        with suppress(Unreachable):
            self._learn(sent, await self._send(sent, []))

    async def _send(self, sent: _Sent, corrections: list[Correction]) -> Reply:
        """Makes the call. When it is cancelled, what it took is given back."""

        def too_late(reply: Reply) -> None:
            claims = self._learn(sent, reply)
            for (need, *_), claim in zip(sent.asks, claims, strict=False):
                self._owe(Correction(need.key, need.rate, claim, 0))

        request = Request(corrections, sent.asks, sent.forced, self._share, sent.holder, self._lease_us)
        try:
            return await self._link.decide(request, too_late)
        except Unreachable:
            for line, own in zip(sent.lines, sent.owns, strict=True):
                if own and line.asking == sent.holder:
                    line.asking = 0
            raise

    def _learn(self, sent: _Sent, reply: Reply) -> _Claims:
        """Takes up what a reply tells. Returns the claims on the needs, if they were taken."""
        now_ns = self._clock()
        took = reply.fits or sent.forced
        claims = []
        for ask, line, own, told, answer in zip(*sent[:4], reply.answers, strict=True):
            key, rate, units = ask.need
            bucket = answer.bucket()
            if took:
                claims.append(bucket.take(rate, units, answer.now_ns))
            if own:
                line.asking = 0
                place = answer.claim(0)._replace(starts_ns=bucket.full_ns)
                self._take_up(key, line, Lease(rate, place, answer.leased, sent.holder, sent.asked_ns), told)
            bucket.full_ns += answer.held_ns
            line.seen = bucket
            line.ahead_ns = answer.now_ns - now_ns
            if not took and (wait_ns := bucket.wait_ns(rate, units, answer.now_ns)):
                line.refused_until_ns = now_ns + min(wait_ns, self._span_ns)
                line.refused_units = units
        return tuple(claims)

    def _take_up(self, key: BucketKey, line: _Line, lease: Lease, told: int) -> None:
        """A line has a new lease, or its present one goes on."""
        if line.lease is not None and line.lease.holder == lease.holder:
            line.lease.renew(lease.place, lease.left, lease.asked_ns, told)
        elif lease.left > 0:
            line.lease = lease
            self._leased[key] = line

    def _ended(self, oldest_ns: int) -> dict[str, list[Ask]]:
        """Ends the leases that have had their time. Returns what Valkey is to be told, by organisation."""
        told: dict[str, list[Ask]] = {}
        for key, line in list(self._leased.items()):
            lease = line.lease
            if lease is None or lease.asked_ns > oldest_ns or line.asking == self._link.holder:
                continue
            line.lease = None
            del self._leased[key]
            if lease.holder == self._link.holder:
                ask = Ask(Need(key, lease.rate, 0), 0, lease.handed_out_ns, keep=False)
                told.setdefault(_organization(key), []).append(ask)
        return told

    async def _send_due(self, corrections: list[Correction], asks: Sequence[Ask]) -> None:
        # A call that failed may have been carried out, so it is not repeated: what it gave back stays charged.
        with suppress(Unreachable):
            await self._link.decide(Request(corrections, asks, holder=self._link.holder))

    def _owe(self, correction: Correction) -> None:
        if correction.used == correction.claim.units or self._due_count >= _MOST_DUE:
            return
        self._due.setdefault(_organization(correction.key), []).append(correction)
        self._due_count += 1

    def _collect(self, organization_id: str) -> list[Correction]:
        """The oldest corrections that are due, as many as one call carries."""
        due = self._due.get(organization_id)
        if not due:
            return []
        if len(due) <= _BATCH:
            del self._due[organization_id]
            batch = due
        else:
            batch, due[:] = due[:_BATCH], due[_BATCH:]
        self._due_count -= len(batch)
        return batch

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _organization(key: BucketKey) -> str:
    """Whose corrections and leases travel together, as all its buckets lie on one node."""
    return key.organization_id or key.owner_id


def _levels(needs: Iterable[Need], lines: Iterable[_Line], now_ns: int) -> tuple[Level, ...]:
    return tuple([line.level(need.rate, now_ns) for need, line in zip(needs, lines, strict=True)])


def _shortage(needs: Sequence[Need], lines: Sequence[_Line], now_ns: int) -> Short | None:
    """What the last calls say about the needs, None when they may fit."""
    longest, index = 0, -1
    for position, ((_, rate, units), line) in enumerate(zip(needs, lines, strict=True)):
        wait_ns = line.wait_ns(rate, units, now_ns)
        if wait_ns is None:
            return Short(position, None, _levels(needs, lines, now_ns))
        if wait_ns > longest:
            longest, index = wait_ns, position
    return Short(index, longest, _levels(needs, lines, now_ns)) if longest else None


async def _tend(buckets: SharedBuckets, pause_s: float) -> None:
    turns = max(1, round(1.0 / pause_s))
    turn = 0
    while True:
        await asyncio.sleep(pause_s)
        buckets.tend()
        turn = (turn + 1) % turns
        if turn == 0:
            buckets.sweep()


@asynccontextmanager
async def open_shared(settings: ValkeySettings, clock: Clock = time.monotonic_ns) -> AsyncIterator[SharedBuckets]:
    """The buckets in the Valkey at `settings.url`, which must be set. It need not be there yet."""
    link = Link(settings, clock)
    buckets = SharedBuckets(settings, link, clock)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(_tend(buckets, settings.settle_ms / 1000))]
    try:
        await link.tried.wait()
        yield buckets
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.timeout_ms / 1000):
                await buckets.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
