"""What is known of a pool and of each of its replicas, and how that is shown. No decision is made here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from modelplane.pools.v1 import pools_pb2
from services.catalog import ModelSpec, generation
from services.pools.scaling import Demand, Memory, Policy, Seen, State
from services.pools.settings import Settings

_STATES: Final = {
    State.STARTING: pools_pb2.REPLICA_STATE_STARTING,
    State.READY: pools_pb2.REPLICA_STATE_READY,
    State.DRAINING: pools_pb2.REPLICA_STATE_DRAINING,
}


@dataclass(slots=True)
class Record:
    """A replica that was started and has not ended."""

    replica_id: str
    model: str
    generation: str
    started_at_ms: int
    state: State = State.STARTING
    pid: int = 0
    address: str = ""
    node_ip: str = ""
    node_name: str = ""
    phase: str = ""
    # It starts and waits for room that others take.
    crowded: bool = False
    was_ready: bool = False
    # Monotonic seconds when the router last knew it, or it became ready.
    known_at_s: float = 0.0

    def info(self) -> pools_pb2.ReplicaInfo:
        """As the contract shows it."""
        return pools_pb2.ReplicaInfo(
            id=self.replica_id,
            model=self.model,
            state=_STATES[self.state],
            pid=self.pid,
            address=self.address,
            started_at_ms=self.started_at_ms,
            phase=self.phase,
            generation=self.generation,
            node_ip=self.node_ip,
            node_name=self.node_name,
        )


@dataclass(slots=True)
class Pool:
    """A configured model, and its replicas by id, oldest first."""

    spec: ModelSpec
    policy: Policy
    generation: str
    memory: Memory = field(default_factory=Memory)
    records: dict[str, Record] = field(default_factory=dict)
    demand: Demand | None = None
    wanted: int = 0
    last_error: str = ""
    # It is not configured any more: its replicas finish, then it goes. `undeclared` once the router was told.
    removed: bool = False
    undeclared: bool = False

    @staticmethod
    def of(spec: ModelSpec, settings: Settings) -> "Pool":
        return Pool(spec, policy_of(spec, settings), generation(spec), wanted=spec.min_replicas)

    def configure(self, spec: ModelSpec, settings: Settings) -> None:
        """Goes by another configuration. What failed before may work now."""
        self.removed = self.undeclared = False
        if spec is self.spec:
            return
        self.spec, self.policy = spec, policy_of(spec, settings)
        if (now := generation(spec)) != self.generation:
            self.generation, self.last_error, self.memory = now, "", Memory()

    def seen(self) -> list[Seen]:
        return [
            Seen(record.replica_id, record.state, record.generation == self.generation, record.crowded)
            for record in self.records.values()
        ]

    def count(self, state: State) -> int:
        return sum([record.state is state for record in self.records.values()])

    def outdated(self) -> int:
        return sum([record.generation != self.generation for record in self.records.values()])

    def waits_for(self) -> str:
        """Why fewer replicas are ready than are wanted; "" when nothing is missing."""
        if self.removed or self.count(State.READY) >= self.wanted:
            return ""
        phases = [record.phase for record in self.records.values() if record.state is State.STARTING and record.phase]
        return phases[0] if phases else self.waits_again()

    def waits_again(self) -> str:
        return f"waiting to start again after: {self.last_error}" if self.last_error else "waiting for Ray"

    def infos(self) -> Iterator[pools_pb2.ReplicaInfo]:
        """Its replicas, and in place of none the wait for the next start."""
        for record in self.records.values():
            yield record.info()
        if not self.records and self.last_error:
            state = pools_pb2.REPLICA_STATE_STARTING
            yield pools_pb2.ReplicaInfo(model=self.spec.name, state=state, phase=self.waits_again())

    def info(self) -> pools_pb2.PoolInfo:
        """As the contract shows it; requests as the router had them at the last look."""
        demand = self.demand or Demand(0, 0)
        return pools_pb2.PoolInfo(
            model=self.spec.name,
            generation=self.generation,
            min_replicas=self.spec.min_replicas,
            max_replicas=self.spec.max_replicas,
            wanted=self.wanted,
            starting=self.count(State.STARTING),
            ready=self.count(State.READY),
            draining=self.count(State.DRAINING),
            outdated=self.outdated(),
            queued=demand.queued,
            running=demand.running,
            output_tokens_per_s=demand.output_tokens_per_s,
            last_error=self.last_error,
            waiting_for=self.waits_for(),
            removed=self.removed,
            replicas=[record.info() for record in self.records.values()],
        )


def policy_of(spec: ModelSpec, settings: Settings) -> Policy:
    """How a model's pool is scaled."""
    return Policy(
        min_replicas=spec.min_replicas,
        max_replicas=spec.max_replicas,
        slots=spec.slots,
        queued_per_replica=_own(spec.queued_per_replica, settings.queued_per_replica),
        scale_up_after_s=_own(spec.scale_up_after_ms, settings.scale_up_after_ms) / 1000,
        scale_down_after_s=_own(spec.scale_down_after_ms, settings.scale_down_after_ms) / 1000,
        backoff_s=settings.backoff_ms / 1000,
        backoff_max_s=settings.backoff_max_ms / 1000,
        surge=spec.surge,
        crowded_after_s=settings.crowded_after_ms / 1000,
        busy_ratio=settings.busy_ratio,
        target_tokens_per_s=spec.target_tokens_per_s,
    )


def _own(value: int | None, default: int) -> int:
    """What the model says, else what holds for all."""
    return default if value is None else value
