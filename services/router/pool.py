"""The live state of one pool: its replicas, the placements on them, and the requests that wait.

Kept true by every method: a seat's `running` is the number of placements on it, and no request waits while a
seat that it may use has a free slot (whoever frees a slot hands it on before anyone else can run). Times are
milliseconds of a monotonic clock, given by the caller. Belongs to one event loop.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from modelplane.router.v1 import router_pb2
from services.router.placement import Seat, TierQueue, choose


@dataclass(slots=True, eq=False)
class Placed:
    """A slot taken by a request."""

    request_id: str
    member: "Member"
    placed_at_ms: float


@dataclass(slots=True, eq=False)
class Member:
    """A registered replica. It gets new requests while it is healthy and does not drain."""

    replica: router_pb2.Replica
    seat: Seat
    seen_at_ms: float
    healthy: bool = True
    draining: bool = False
    placements: dict[str, Placed] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue; `turn` is its placement, once it has one."""

    request_id: str
    prefix_hash: int
    excluded: frozenset[str]
    tier: str
    turn: asyncio.Future[Placed]


class PoolState:
    """One pool. `declared` is None until somebody declares it; replicas may be faster."""

    def __init__(self, placements: dict[str, Placed]) -> None:
        """`placements` is the index by request id that all pools of a router share."""
        self.declared: router_pb2.Pool | None = None
        self.members: dict[str, Member] = {}
        self.queue: TierQueue[Waiter] = TierQueue()
        self._placements = placements
        # The seats of the members that take requests.
        self._open: list[Seat] = []

    @property
    def running(self) -> int:
        return sum([member.seat.running for member in self.members.values()])

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
        if self.queue:
            self._serve(now_ms)

    def place(self, request_id: str, prefix_hash: int, excluded: Collection[str], now_ms: float) -> Placed | None:
        """Takes a slot, or returns None when every slot that the request may use is taken.

        The request must not hold a placement already.
        """
        seat = choose(self._open, prefix_hash, excluded)
        if seat is None:
            return None
        member = self.members[seat.replica_id]
        placed = Placed(request_id, member, now_ms)
        member.placements[request_id] = self._placements[request_id] = placed
        seat.running += 1
        return placed

    def reachable(self, excluded: Collection[str]) -> bool:
        """True when some replica, busy or not, could serve a request."""
        return any(seat.replica_id not in excluded for seat in self._open)

    def changed(self, now_ms: float) -> None:
        """To be called after a replica came, went, or changed its state."""
        self._open = [m.seat for m in self.members.values() if m.healthy and not m.draining]
        if self.queue:
            self._serve(now_ms)

    def _serve(self, now_ms: float) -> None:
        """Gives free slots to those who wait, in order."""
        served: list[tuple[Waiter, Placed]] = []
        for waiter in self.queue:
            if all(seat.running >= seat.slots for seat in self._open):
                break
            placed = self.place(waiter.request_id, waiter.prefix_hash, waiter.excluded, now_ms)
            if placed is not None:
                served.append((waiter, placed))
        for waiter, placed in served:
            self.queue.discard(waiter.tier, waiter)
            waiter.turn.set_result(placed)
