"""How many replicas a pool should have now: a pure function of what it has, what is asked of it, and the time.

Kept true: never more than `max_replicas`, those that drain included; never fewer than `min_replicas` for longer
than the pause after failed starts; only a replica that can be spared is taken away. A replica that ends is
replaced at once, and so is the first one that fails to start; from then on the pauses double.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum


class State(Enum):
    """What a replica is doing."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


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


@dataclass(frozen=True, slots=True)
class Demand:
    """What the router knows of a pool: requests placed, and requests that wait."""

    running: int
    queued: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What a plan must know of the past. Points of time are seconds of a monotonic clock."""

    short_since_s: float | None = None
    spare_since_s: float | None = None
    failed_starts: int = 0
    start_from_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: start so many replicas, drain these."""

    start: int
    drain: tuple[str, ...]
    memory: Memory


def plan(
    policy: Policy, replicas: Sequence[tuple[str, State]], demand: Demand | None, memory: Memory, now_s: float
) -> Plan:
    """What to do at `now_s` with replicas given as (id, state), oldest first. `demand` is None while unknown."""
    live = [replica for replica in replicas if replica[1] is not State.DRAINING]
    ready = [replica_id for replica_id, state in live if state is State.READY]
    short = demand is not None and demand.queued > policy.queued_per_replica * len(live)
    spare = (
        demand is not None
        and demand.queued == 0
        and len(live) == len(ready) > policy.min_replicas
        and demand.running <= (len(ready) - 1) * policy.slots / 2
    )
    memory = replace(
        memory,
        short_since_s=_since(short, memory.short_since_s, now_s),
        spare_since_s=_since(spare, memory.spare_since_s, now_s),
    )
    wanted = policy.min_replicas - len(live)
    # With no replica at all there is nothing to wait for.
    if short and (not live or _passed(memory.short_since_s, policy.scale_up_after_s, now_s)):
        wanted = max(wanted, 1)
    start = min(wanted, policy.max_replicas - len(replicas))
    if start > 0 and now_s >= memory.start_from_s:
        return Plan(start, (), replace(memory, short_since_s=None, spare_since_s=None))
    if spare and _passed(memory.spare_since_s, policy.scale_down_after_s, now_s):
        return Plan(0, (ready[-1],), replace(memory, spare_since_s=None))
    return Plan(0, (), memory)


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
