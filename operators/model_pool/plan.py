"""What to do about one pool: a pure function of its object and of what is seen of it.

Three things are kept in step: the pool's entry in the catalogue, which `pools` follows; its worker groups, whose pods
offer the room that replicas ask for; and the object's status. `pools` decides how many replicas there are and replaces
outdated ones; here is only seen to it that they find room.

Kept true: no pod is taken away that holds a replica, or that one may be on its way to; while `pools` cannot be asked,
none is taken away at all; a group's template never changes: what pods depend on makes another group, which fills as the
older ones empty; an object is let go when its replicas have finished and nothing of it is left. To plan again after the
actions have been carried out gives none, but for taking away what they emptied.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from operators.model_pool.entry import EntryError, generation_of, parsed, table, toml
from operators.model_pool.workers import Document, Platform, group_document, is_group_of, resource_of


class State(Enum):
    """What a replica is doing, in the words of `pools`."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Replica:
    """One of `pools`' replicas. `pod` is empty while it is not known where it runs."""

    replica_id: str
    state: State
    pod: str = ""
    current: bool = True
    started_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What `pools` says of the pool."""

    generation: str = ""
    wanted: int = 0
    replicas: tuple[Replica, ...] = ()
    queued: int = 0
    running: int = 0
    output_tokens_per_s: float = 0.0
    last_error: str = ""
    waiting_for: str = ""
    removed: bool = False

    def count(self, state: State) -> int:
        return sum(replica.state is state for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a worker group. `leaving`: it was deleted and ends."""

    name: str
    group: str
    ready: bool = True
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """An object, or what is left of one that is gone: then `spec` is None."""

    name: str
    spec: Mapping[str, Any] | None
    created: str = ""
    generation: int = 0
    deleting: bool = False

    @property
    def wanted(self) -> bool:
        return self.spec is not None and not self.deleting


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen of a pool. `groups` are its own, by name: None where replicas need none (`platform` is None)."""

    entry: str | None = None
    others: Mapping[Path, bytes] = field(default_factory=dict)
    groups: Mapping[str, Document] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    asked: bool = False
    """Whether `pools` answered: without it `measured` says nothing."""
    measured: Measured | None = None
    holder: str = ""
    """Another pool that has the model: until nothing of that one is left, this one has nothing."""
    trouble: str = ""
    """What keeps the operator itself from working: no RayCluster, no answer of `pools`."""


@dataclass(frozen=True, slots=True)
class PutEntry:
    """Writes the pool's entry into the catalogue."""

    text: str


@dataclass(frozen=True, slots=True)
class DropEntry:
    """Takes it out: `pools` lets its replicas finish."""


@dataclass(frozen=True, slots=True)
class AddGroup:
    """Adds a worker group."""

    document: Document = field(hash=False)


@dataclass(frozen=True, slots=True)
class ScaleGroup:
    """Sets how many pods a group has, and which go."""

    group: str
    replicas: int
    leaving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DropGroup:
    """Takes a group away that has no pods."""

    group: str


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing of the pool is left: its object may go."""


Action = PutEntry | DropEntry | AddGroup | ScaleGroup | DropGroup | Release


@dataclass(frozen=True, slots=True)
class Planned:
    """The actions in their order; why the object cannot be followed, "" when it can; and the entry as it will be."""

    actions: tuple[Action, ...]
    refused: str = ""
    entry: str | None = None


def plan(pool: Pool, seen: Observed, platform: Platform | None) -> Planned:
    """`platform`: what pods have in common, None where replicas run without pods of their own."""
    refused, entry, document = "", seen.entry, None
    if pool.wanted:
        assert pool.spec is not None
        document = group_document(pool.name, pool.spec, platform) if platform else None
        offers = {resource_of(document["groupName"]): 1.0} if document else {}
        try:
            if seen.holder:
                raise EntryError(f"the model is that of the pool {seen.holder}")
            entry = toml(table(pool.spec, pool.created, offers))
            parsed(entry, seen.others)
        except EntryError as error:
            # What was served before goes on.
            refused, entry, document = str(error), seen.entry, None
    else:
        entry = None
    actions: list[Action] = []
    groups = dict(seen.groups)
    current = document["groupName"] if document else _served_by(seen)
    if document and current not in groups:
        actions.append(AddGroup(document))
        groups[current] = document
    if entry is not None and entry != seen.entry:
        actions.append(PutEntry(entry))
    if entry is None and seen.entry is not None:
        actions.append(DropEntry())
    actions += _rooms(pool, replace(seen, groups=groups), current, entry)
    if not pool.wanted and not seen.groups and seen.entry is None and seen.asked and seen.measured is None:
        actions.append(Release())
    return Planned(tuple(actions), refused, entry)


def _served_by(seen: Observed) -> str:
    """The group that the entry in force names, for a pool whose object cannot be followed now."""
    return next((name for name in seen.groups if f'"{resource_of(name)}"' in (seen.entry or "")), "")


def _rooms(pool: Pool, seen: Observed, current: str, entry: str | None) -> Iterator[Action]:
    """Makes each group as large as its replicas need it, and no smaller."""
    if not seen.asked:
        return
    measured = seen.measured
    # Until `pools` goes by the new entry, it may still start replicas where the old one sends them.
    followed = measured is None or (measured.removed if entry is None else measured.generation == generation_of(entry))
    replicas = measured.replicas if measured else ()
    if entry is None:
        wanted = 0
    elif measured and not measured.removed:
        wanted = measured.wanted
    else:
        wanted = int((pool.spec or {}).get("replicas", {}).get("min", 1))
    for name, group in seen.groups.items():
        pods = [pod for pod in seen.pods if pod.group == name]
        names = {pod.name for pod in pods if not pod.leaving}
        held = {replica.pod for replica in replicas} & names
        if name == current:
            need = _need(wanted, replicas, names, followed, alone=len(seen.groups) == 1)
            lost = any(not replica.pod for replica in replicas)
        else:
            # What asks for the room of the current group can come to no other.
            need, lost = 0, any(not (replica.pod or (replica.current and followed)) for replica in replicas)
        if name != current and not (group.get("replicas") or pods or lost) and followed:
            yield DropGroup(name)
        else:
            yield from _scaled(group, pods, held, need, fixed=lost or not followed)


def _need(wanted: int, replicas: Sequence[Replica], names: set[str], followed: bool, alone: bool) -> int:
    """Pods of the current group for replicas that are wanted and, as long as they finish, for those that are not."""
    if not followed and not alone:
        wanted = 0
    elsewhere = sum(
        replica.state is not State.DRAINING and bool(replica.pod) and replica.pod not in names for replica in replicas
    )
    draining = sum(replica.state is State.DRAINING and replica.pod in names for replica in replicas)
    return max(0, wanted - elsewhere) + draining


def _scaled(group: Document, pods: Sequence[Pod], held: set[str], need: int, fixed: bool) -> Iterator[ScaleGroup]:
    """One group. `fixed`: it may grow, but not shrink."""
    now = int(group.get("replicas", 0))
    listed = tuple((group.get("scaleStrategy") or {}).get("workersToDelete") or ())
    staying = [pod for pod in pods if not pod.leaving]
    target = max(need, len(held), now if fixed else 0)
    # Those that were to go already come first, then those that are not there yet.
    idle = sorted(
        (pod for pod in staying if pod.name not in held), key=lambda pod: (pod.name not in listed, pod.ready, pod.name)
    )
    # KubeRay counts a pod that ends by itself among those that run, and would take another in its place.
    going = [*idle[: max(0, len(staying) - target)], *(pod for pod in pods if pod.leaving)]
    leaving = tuple(sorted(pod.name for pod in going))
    if (target, leaving) != (now, tuple(sorted(listed))):
        yield ScaleGroup(str(group["groupName"]), target, leaving)


def own_groups(pool: str, groups: Sequence[Document]) -> dict[str, Document]:
    """Those of a pool, of all that a RayCluster has."""
    return {str(group["groupName"]): group for group in groups if is_group_of(pool, str(group["groupName"]))}


def carried_out(groups: Sequence[Document], actions: Sequence[Action]) -> list[Document]:
    """A RayCluster's groups after the actions; groups that no action names are as they were."""
    found = {str(group["groupName"]): group for group in groups}
    for action in actions:
        match action:
            case AddGroup(document):
                found.setdefault(str(document["groupName"]), document)
            case ScaleGroup(name, replicas, leaving) if name in found:
                strategy = {"workersToDelete": list(leaving)}
                found[name] = {**found[name], "replicas": replicas, "scaleStrategy": strategy}
            case DropGroup(name):
                found.pop(name, None)
            case _:
                pass
    return list(found.values())
