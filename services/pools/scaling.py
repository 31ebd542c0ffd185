"""How many replicas a pool should have now: a pure function of what it has, what is asked of it, and the time.

Kept true: never more than `max_replicas`, those that drain included, and one more (`surge`) while outdated replicas
are replaced; never fewer than `min_replicas` for longer than the pause after failed starts; only a replica that can
be spared is taken away. A replica that ends is replaced at once, and so is the first one that fails to start; from
then on the pauses double.

Outdated replicas are replaced one by one. With surge a successor is ready before one of them drains, so no fewer are
ready than before. Without, or where a successor has waited for room that outdated ones take, one of them makes room
first; no second one does before that successor is ready. A successor that cannot start leaves the others alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple


class State(Enum):
    """What a replica is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Seen(NamedTuple):
    """A replica as a plan sees it."""

    replica_id: str
    state: State
    current: bool = True
    """False when its model's configuration has changed since it was started."""
    crowded: bool = False
    """It starts, and waits for room that others take."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is configured for a pool. Times are seconds."""

    min_replicas: int
    max_replicas: int
    slots: int
    queued_per_replica: int
    scale_up_after_s: float
    scale_down_after_s: float
    backoff_s: float
    backoff_max_s: float
    surge: int = 1
    crowded_after_s: float = 30.0
    # The part of its slots above which a pool is too small.
    busy_ratio: float = 0.9
    # Output tokens per second of one replica above which a pool is too small; 0: any number is right.
    target_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What the router knows of a pool: requests placed, requests that wait, and what its replicas make."""

    running: int
    queued: int
    output_tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What a plan must know of the past. Points of time are seconds of a monotonic clock."""

    short_since_s: float | None = None
    spare_since_s: float | None = None
    crowded_since_s: float | None = None
    failed_starts: int = 0
    start_from_s: float = float("-inf")
    # How many replicas a pool keeps while its outdated ones are replaced; None while there are none.
    rolling: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: start so many replicas, drain these. `wanted`: how many there should be that do not drain."""

    start: int
    drain: tuple[str, ...]
    memory: Memory
    wanted: int


def plan(policy: Policy, replicas: Sequence[Seen], demand: Demand | None, memory: Memory, now_s: float) -> Plan:
    """What to do at `now_s` with replicas oldest first. `demand` is None while unknown."""
    live = [replica for replica in replicas if replica.state is not State.DRAINING]
    ready = [replica for replica in live if replica.state is State.READY]
    short = demand is not None and _short(policy, demand, len(live))
    spare = demand is not None and len(live) == len(ready) > policy.min_replicas and _spare(policy, demand, len(ready))
    crowded = any(replica.crowded and replica.current for replica in live)
    outdated = any(not replica.current for replica in live)
    memory = replace(
        memory,
        short_since_s=_since(short, memory.short_since_s, now_s),
        spare_since_s=_since(spare, memory.spare_since_s, now_s),
        crowded_since_s=_since(crowded, memory.crowded_since_s, now_s),
        rolling=_size(policy, memory, len(live)) if outdated else None,
    )
    if (excess := len(live) - policy.max_replicas - (policy.surge if outdated else 0)) > 0:
        # The maximum was lowered. Those go first that are missed least.
        order = sorted(live, key=lambda replica: (replica.current, replica.state is State.READY))
        return Plan(0, tuple(replica.replica_id for replica in order[:excess]), memory, len(live) - excess)
    missing = policy.min_replicas - len(live)
    # With no replica at all there is nothing to wait for.
    if short and (not live or _passed(memory.short_since_s, policy.scale_up_after_s, now_s)):
        missing = max(missing, 1)
    start = min(missing, policy.max_replicas - len(replicas))
    if start > 0:
        if now_s < memory.start_from_s:
            return Plan(0, (), memory, len(live) + start)
        grown = memory.rolling and max(memory.rolling, len(live) + start)
        after = replace(memory, short_since_s=None, spare_since_s=None, rolling=grown)
        return Plan(start, (), after, len(live) + start)
    if spare and _passed(memory.spare_since_s, policy.scale_down_after_s, now_s):
        chosen = next((replica for replica in ready if not replica.current), ready[-1])
        fewer = memory.rolling and max(memory.rolling - 1, 1)
        return _drain(chosen, replace(memory, spare_since_s=None, rolling=fewer), live)
    if memory.rolling is not None:
        return _roll(policy, replicas, memory, memory.rolling, now_s)
    return Plan(0, (), memory, len(live))


def _size(policy: Policy, memory: Memory, live: int) -> int:
    """How many replicas a pool keeps while some are replaced: as many as it had, within its bounds."""
    return min(max(memory.rolling or live, policy.min_replicas), policy.max_replicas)


def _roll(policy: Policy, replicas: Sequence[Seen], memory: Memory, size: int, now_s: float) -> Plan:
    """The next step of replacing outdated replicas in a pool that otherwise keeps `size` of them."""
    live = [replica for replica in replicas if replica.state is not State.DRAINING]
    ready = [replica for replica in live if replica.state is State.READY]
    starting = [replica for replica in live if replica.state is State.STARTING]
    outdated = [replica for replica in ready if not replica.current]
    # Nobody waits for one that only starts.
    if obsolete := [replica for replica in starting if not replica.current]:
        return _drain(obsolete[0], memory, live)
    if not outdated:
        return Plan(0, (), memory, len(live))
    draining = len(live) < len(replicas)
    crowded = _passed(memory.crowded_since_s, policy.crowded_after_s, now_s)
    room = len(replicas) < policy.max_replicas + policy.surge
    if starting:
        # Its successor has no room: one makes it, once.
        leaves = crowded and not draining and len(ready) >= size
    else:
        leaves = len(ready) > size or not (room or draining)
    if leaves:
        return _drain(outdated[0], memory, live)
    if starting or not room:
        return Plan(0, (), memory, len(live))
    return Plan(1 if now_s >= memory.start_from_s else 0, (), memory, len(live) + 1)


def _drain(replica: Seen, memory: Memory, live: Sequence[Seen]) -> Plan:
    return Plan(0, (replica.replica_id,), memory, len(live) - 1)


def _short(policy: Policy, demand: Demand, live: int) -> bool:
    """Whether more is asked than so many replicas should do."""
    target = policy.target_tokens_per_s
    return (
        demand.queued > policy.queued_per_replica * live
        or (live > 0 and demand.running >= policy.busy_ratio * policy.slots * live)
        or (live > 0 and 0 < target * live < demand.output_tokens_per_s)
    )


def _spare(policy: Policy, demand: Demand, ready: int) -> bool:
    """Whether one fewer would do, at half of what makes a pool grow."""
    target = policy.target_tokens_per_s
    return (
        demand.queued == 0
        and demand.running <= (ready - 1) * policy.slots / 2
        and (target <= 0 or demand.output_tokens_per_s <= (ready - 1) * target / 2)
    )


def started(memory: Memory) -> Memory:
    """A replica became ready: starting works."""
    return replace(memory, failed_starts=0, start_from_s=float("-inf"))


def start_failed(policy: Policy, memory: Memory, now_s: float) -> Memory:
    """A replica ended before it was ready."""
    failed = memory.failed_starts + 1
    pause_s = 0.0 if failed == 1 else min(policy.backoff_s * 2.0 ** min(failed - 2, 32), policy.backoff_max_s)
    return replace(memory, failed_starts=failed, start_from_s=now_s + pause_s)


def _since(holds: bool, since_s: float | None, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s


def _passed(since_s: float | None, duration_s: float, now_s: float) -> bool:
    return since_s is not None and now_s - since_s >= duration_s
