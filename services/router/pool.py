"""The live state of one pool: its replicas, the placements on them, and the requests that wait.

Kept true by every method: a seat's `running` is the number of placements on it; no project and no key has more
than its share of the slots that take requests; and no request whose share has room waits while a seat that it may
use has a free slot (whoever frees a slot hands it on before anyone else can run). Times are milliseconds of a
monotonic clock, given by the caller. Belongs to one event loop.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from modelplane.router.v1 import router_pb2
from services.faults import Fault
from services.router.fairness import Owner, Shares, TierQueue
from services.router.placement import Seat, choose
from services.router.settings import Settings


@dataclass(slots=True, eq=False)
class Placed:
    """A slot taken by a request."""

    request_id: str
    owner: Owner
    member: "Member"
    placed_at_ms: float


@dataclass(slots=True, eq=False)
class Member:
    """A registered replica."""

    replica: router_pb2.Replica
    seat: Seat
    seen_at_ms: float
    healthy: bool = True
    draining: bool = False
    output_tokens_per_s: float = 0.0
    placements: dict[str, Placed] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """True when it gets new requests."""
        return self.healthy and not self.draining


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue; `turn` is its placement, once it has one."""

    request_id: str
    owner: Owner
    weight: int
    prefix_hash: int
    excluded: frozenset[str]
    tier: str
    turn: asyncio.Future[Placed]


class PoolState:
    """One pool. `declared` is None until somebody declares it; replicas may be faster."""

    def __init__(self, placements: dict[str, Placed], settings: Settings) -> None:
        """`placements` is the index by request id that all pools of a router share."""
        self.declared: router_pb2.Pool | None = None
        # Its declaration was taken back: what runs is finished, and nothing begins.
        self.removed = False
        self.members: dict[str, Member] = {}
        self._placements = placements
        self._settings = settings
        self._queue: TierQueue[Waiter] = TierQueue()
        self._places = self._shares(settings.queue_size)
        # The seats of the members that take requests, and who holds how many of their slots.
        self._open: list[Seat] = []
        self._slots = self._shares(0)

    @property
    def running(self) -> int:
        return sum([member.seat.running for member in self.members.values()])

    @property
    def output_tokens_per_s(self) -> float:
        return sum([member.output_tokens_per_s for member in self.members.values()])

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def live(self) -> list[Member]:
        """The replicas that take requests."""
        return [self.members[seat.replica_id] for seat in self._open]

    def add(self, replica: router_pb2.Replica, now_ms: float) -> None:
        """Takes in a replica, or its new description; placements that it has stay."""
        known = self.members.get(replica.id)
        member = Member(replica, Seat.of(replica.id, replica.slots), now_ms)
        if known:
            member.placements = known.placements
            member.seat.running = known.seat.running
            for placed in member.placements.values():
                placed.member = member
        self.members[replica.id] = member
        self.changed(now_ms)

    def remove(self, replica_id: str, now_ms: float) -> None:
        """Gives a replica up; its placements end."""
        self.drop_all(self.members.pop(replica_id))
        self.changed(now_ms)

    def drop_all(self, member: Member) -> None:
        for request_id in member.placements:
            del self._placements[request_id]
        member.placements.clear()
        member.seat.running = 0

    def drop(self, placed: Placed, now_ms: float) -> None:
        """Ends one placement, if it has not ended yet, and hands its slot on."""
        if placed.member.placements.pop(placed.request_id, None) is None:
            return
        del self._placements[placed.request_id]
        placed.member.seat.running -= 1
        if placed.member.open:
            self._slots.remove(placed.owner)
        if self._queue:
            self._serve(now_ms)

    def place(
        self, request_id: str, owner: Owner, prefix_hash: int, excluded: Collection[str], now_ms: float
    ) -> Placed | None:
        """Takes a slot, or returns None when every slot that the request may use is taken.

        The request must not hold a placement already.
        """
        if self._slots.spent(owner):
            return None
        seat = choose(self._open, prefix_hash, excluded)
        if seat is None:
            return None
        member = self.members[seat.replica_id]
        placed = Placed(request_id, owner, member, now_ms)
        member.placements[request_id] = self._placements[request_id] = placed
        seat.running += 1
        self._slots.add(owner)
        return placed

    def held_back(self, owner: Owner, excluded: Collection[str]) -> Literal["key", "project"] | None:
        """Whose share, if one, keeps the owner from a slot that is free."""
        return self._slots.spent(owner) if choose(self._open, 0, excluded) else None

    def enqueue(self, waiter: Waiter) -> bool:
        """Lets a request wait that could not be placed. False when the queue, or the owner's share of it, is full."""
        if len(self._queue) >= self._settings.queue_size or self._places.spent(waiter.owner):
            return False
        self._places.add(waiter.owner)
        project_id, key_id = waiter.owner
        # Part of the flow: what one of its requests can use, all can.
        flow = (key_id, waiter.excluded)
        self._queue.push(waiter.tier, project_id, waiter.weight, flow, waiter)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Ends the wait, if it has not ended yet."""
        if self._queue.discard(waiter):
            self._places.remove(waiter.owner)

    def refuse_all(self, fault: Fault) -> None:
        """Ends every wait with a fault."""
        while (waiter := self._queue.take(lambda waiter: True)) is not None:
            self._places.remove(waiter.owner)
            waiter.turn.set_exception(fault)

    def reachable(self, excluded: Collection[str]) -> bool:
        """True when some replica, busy or not, could serve a request."""
        return any(seat.replica_id not in excluded for seat in self._open)

    def changed(self, now_ms: float) -> None:
        """To be called after a replica came, went, or changed its state."""
        live = [member for member in self.members.values() if member.open]
        self._open = [member.seat for member in live]
        # What runs on a replica that drains is nobody's share of those that do not.
        owners = [placed.owner for member in live for placed in member.placements.values()]
        self._slots = self._shares(sum([seat.slots for seat in self._open]), owners)
        if self._queue:
            self._serve(now_ms)

    def _shares(self, total: int, owners: Collection[Owner] = ()) -> Shares:
        return Shares(total, self._settings.key_share, self._settings.project_share, owners)

    def _serve(self, now_ms: float) -> None:
        """Gives free slots to those who wait, in order."""
        while any(seat.running < seat.slots for seat in self._open):
            waiter = self._queue.take(self._servable)
            if waiter is None:
                return
            self._places.remove(waiter.owner)
            placed = self.place(waiter.request_id, waiter.owner, waiter.prefix_hash, waiter.excluded, now_ms)
            assert placed is not None
            waiter.turn.set_result(placed)

    def _servable(self, waiter: Waiter) -> bool:
        """Whether a waiter could be placed, given that some slot is free."""
        if self._slots.spent(waiter.owner):
            return False
        return not waiter.excluded or choose(self._open, 0, waiter.excluded) is not None
