"""A cluster as the plan meets it: a RayCluster whose pods come and go as KubeRay makes them, and `pools` as it is.

The real scaling decides about replicas; what is played are machines, time, and how long everything takes.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.model_pool.entry import generation_of, parsed
from operators.model_pool.plan import (
    Action,
    DropEntry,
    Measured,
    Observed,
    Planned,
    Pod,
    Pool,
    PutEntry,
    Release,
    Replica,
    State,
    carried_out,
    own_groups,
    plan,
)
from operators.model_pool.workers import Document, Platform, resource_of
from services.catalog import ModelSpec
from services.pools import scaling

PLATFORM = Platform("f-pools", "worker:1")


@dataclass
class Live:
    """A replica: its pod, once it has one, and whether `pools` has heard of that."""

    replica_id: str
    generation: str
    resource: str
    state: State = State.STARTING
    pod: str = ""
    told: bool = False


@dataclass
class Played:
    """One pool's world beside those of others. `rooms`: pods that the machines have room for."""

    pool: Pool
    random: random.Random
    rooms: int = 1000
    entry: str | None = None
    taken_up: str | None = None
    memory: scaling.Memory = field(default_factory=scaling.Memory)
    replicas: dict[str, Live] = field(default_factory=dict)
    wanted: int = 0
    known: bool = False
    running: int = 0
    now_s: float = 0.0
    released: bool = False
    platform: Platform = PLATFORM
    # Shared with the other pools.
    groups: list[Document] = field(default_factory=list)
    pods: dict[str, Pod] = field(default_factory=dict)
    made: int = 0
    killed: list[str] = field(default_factory=list)
    read: dict[str, tuple[ModelSpec, str]] = field(default_factory=dict)

    def spec_of(self, text: str) -> tuple[ModelSpec, str]:
        """What an entry says, and its generation."""
        if text not in self.read:
            self.read[text] = (parsed(text, {}), generation_of(text))
        return self.read[text]

    def observed(self, asked: bool = True) -> Observed:
        measured = None
        if self.known:
            generation = self.spec_of(self.taken_up)[1] if self.taken_up else ""
            measured = Measured(
                generation=generation,
                wanted=self.wanted,
                removed=self.taken_up is None,
                replicas=tuple(
                    Replica(one.replica_id, one.state, one.pod if one.told else "", one.generation == generation)
                    for one in self.replicas.values()
                ),
            )
        groups = own_groups(self.pool.name, self.groups)
        pods = tuple(pod for pod in self.pods.values() if pod.group in groups)
        return Observed(entry=self.entry, groups=groups, pods=pods, asked=asked, measured=measured if asked else None)

    def turn(self, asked: bool = True) -> Planned:
        """The operator looks and acts."""
        planned = plan(self.pool, self.observed(asked), self.platform)
        self.carry_out(planned.actions)
        return planned

    def carry_out(self, actions: tuple[Action, ...]) -> None:
        self.groups[:] = carried_out(self.groups, actions)
        for action in actions:
            match action:
                case PutEntry(text):
                    self.entry = text
                case DropEntry():
                    self.entry = None
                case Release():
                    self.released = True
                case _:
                    pass

    # What happens beside the operator, in any order.

    def pools_follow(self) -> None:
        """`pools` sees the catalogue as it is now."""
        self.taken_up = self.entry
        self.known = self.known or self.entry is not None

    def pools_look(self, running: int = 0, queued: int = 0) -> None:
        """`pools` decides, as `services.pools` does."""
        self.now_s += 1
        if not self.known:
            return
        if self.taken_up is None:
            self.wanted = 0
            for one in list(self.replicas.values()):
                self._drain(one)
            self.known = bool(self.replicas)
            return
        spec, generation = self.spec_of(self.taken_up)
        policy = scaling.Policy(
            *(spec.min_replicas, spec.max_replicas, spec.slots, 4, 1.0, 3.0, 1.0, 60.0),
            surge=spec.surge,
            crowded_after_s=5.0,
        )
        seen = [
            scaling.Seen(one.replica_id, scaling.State(one.state.value), one.generation == generation, not one.pod)
            for one in self.replicas.values()
        ]
        planned = scaling.plan(policy, seen, scaling.Demand(running, queued), self.memory, self.now_s)
        self.memory, self.wanted = planned.memory, planned.wanted
        for _ in range(planned.start):
            self.made += 1
            name = f"r{self.made}"
            self.replicas[name] = Live(name, generation, next(iter(spec.resources)))
        for name in planned.drain:
            self._drain(self.replicas[name])

    def _drain(self, one: Live) -> None:
        if one.state is State.READY:
            one.state = State.DRAINING
        elif one.state is State.STARTING:
            del self.replicas[one.replica_id]

    def ray_places(self) -> None:
        """Replicas get room where their resource is offered and free."""
        taken = {one.pod for one in self.replicas.values()}
        for one in self.replicas.values():
            free = [
                pod.name
                for pod in self.pods.values()
                if pod.ready and not pod.leaving and resource_of(pod.group) == one.resource and pod.name not in taken
            ]
            if not one.pod and free:
                one.pod = self.random.choice(free)
                taken.add(one.pod)

    def replicas_start(self) -> None:
        for one in self.replicas.values():
            if one.pod:
                one.told = True
                if one.state is State.STARTING:
                    one.state = State.READY

    def replicas_finish(self) -> None:
        for name in [name for name, one in self.replicas.items() if one.state is State.DRAINING]:
            del self.replicas[name]

    def kuberay_looks(self) -> None:
        """Pods are deleted and made; like KubeRay, more of them than there should be are taken at random."""
        for group in own_groups(self.pool.name, self.groups).values():
            listed = set(group["scaleStrategy"]["workersToDelete"])
            for name in listed & self.pods.keys():
                self._delete(name)
            pods = [pod for pod in self.pods.values() if pod.group == group["groupName"] and pod.name not in listed]
            for pod in pods[group["replicas"] :]:
                self._delete(pod.name)
            for _ in range(group["replicas"] - len(pods)):
                self.made += 1
                name = f"{group['groupName']}-worker-{self.made}"
                self.pods[name] = Pod(name, group["groupName"], ready=False)

    def _delete(self, name: str) -> None:
        pod = self.pods[name]
        if any(one.pod == name and one.state is not State.STARTING for one in self.replicas.values()):
            self.killed.append(name)
        self.pods[name] = Pod(name, pod.group, pod.ready, leaving=True)

    def pods_go_on(self) -> None:
        """Pods that were deleted are gone, and with them their replicas; others are ready where there is room."""
        for name in [name for name, pod in self.pods.items() if pod.leaving]:
            del self.pods[name]
            for replica in [one.replica_id for one in self.replicas.values() if one.pod == name]:
                del self.replicas[replica]
        room = self.rooms - sum(pod.ready for pod in self.pods.values())
        for name, pod in list(self.pods.items()):
            if not pod.ready and room > 0:
                self.pods[name] = Pod(name, pod.group, ready=True)
                room -= 1

    def ready(self) -> int:
        return sum(one.state is State.READY for one in self.replicas.values())

    def settle(self, rounds: int = 60, queued: int = 0) -> None:
        """Everything happens in its order until nothing changes any more, at most so many times."""
        same, before = 0, ""
        for _ in range(rounds):
            now = repr((self.groups, self.pods, self.replicas, self.entry, self.known))
            same, before = same + 1 if now == before else 0, now
            if same > 8:
                # Longer than the longest time that the policy waits for.
                return
            self.turn()
            self.kuberay_looks()
            self.pods_go_on()
            self.pools_follow()
            self.pools_look(queued=queued)
            self.ray_places()
            self.replicas_start()
            self.replicas_finish()


def spec(**changes: Any) -> Mapping[str, Any]:
    """A pool's spec as the API server completes it."""
    whole = {
        "model": "small",
        "engine": "scripted",
        "free": True,
        "replicas": {"min": 1, "max": 1, "surge": 1},
        "resources": {"gpu": 0, "gpuResource": "nvidia.com/gpu"},
        "weights": {"source": "package"},
    }
    return {**whole, **changes}
