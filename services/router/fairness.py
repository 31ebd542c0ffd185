"""In which order requests wait for a slot, and how much of a pool one project or one key may have.

Tiers are served strictly in order. Within a tier projects share by weight (self-clocked fair queueing): a project's
tag is the virtual time at which its next request would be done, the lowest tag is served, and virtual time is the
tag served last. A project with nothing in the queue needs no tag, since its last one is never ahead of virtual time:
it returns like a new one, without credit or debt. Within a project its flows take turns, and a flow is first come,
first served.

Order alone does not keep a pool open: while one key's long streams hold every slot, the first in the queue waits
as long as the last. So there are hard shares besides, kept also while nobody else asks. Nothing here reads a clock.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Literal, TypeVar

TIERS = ("scale", "priority", "default", "flex", "batch")
"""Service tiers, the one served first in front."""

Owner = tuple[str, str]
"""Whose a request is: its project's id and its key's. Empty ids are as good as any other."""

# Virtual time that a request takes at weight 1. An integer, so that weights up to 2**31 count exactly enough and
# nothing drifts.
_COST = 1 << 40

ItemT = TypeVar("ItemT", bound=Hashable)


class Shares:
    """How many of `total` places every owner has, and whether it may have more: a key `key_share` of them, a project
    `project_share`.

    Shares are rounded up: a key with a share of 0.9 leaves one place of ten to others, and of fewer none, so that a
    small pool serves whoever is there.
    """

    def __init__(self, total: int, key_share: float, project_share: float, owners: Iterable[Owner] = ()) -> None:
        self._key_limit = _part(total, key_share)
        self._project_limit = _part(total, project_share)
        self._of_key: dict[Owner, int] = {}
        self._of_project: dict[str, int] = {}
        for owner in owners:
            self.add(owner)

    def spent(self, owner: Owner) -> Literal["key", "project"] | None:
        """Whose share is used up, if one is."""
        if self._of_key.get(owner, 0) >= self._key_limit:
            return "key"
        if self._of_project.get(owner[0], 0) >= self._project_limit:
            return "project"
        return None

    def add(self, owner: Owner) -> None:
        self._of_key[owner] = self._of_key.get(owner, 0) + 1
        self._of_project[owner[0]] = self._of_project.get(owner[0], 0) + 1

    def remove(self, owner: Owner) -> None:
        """Takes back an `add`."""
        _count_down(self._of_key, owner)
        _count_down(self._of_project, owner[0])


class TierQueue(Generic[ItemT]):
    """Items that wait, each at most once.

    All items of a flow can use the same slots, so that its first one speaks for all: what cannot be served is passed
    over flow by flow, however many items wait in each.
    """

    def __init__(self) -> None:
        self._tiers: dict[str, _FairQueue[ItemT]] = {tier: _FairQueue() for tier in TIERS}
        self._places: dict[ItemT, tuple[str, str, Hashable]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def push(self, tier: str, project_id: str, weight: int, flow: Hashable, item: ItemT) -> None:
        """Lets an item wait. `weight` is the project's share from now on, relative to other projects of the tier; less
        than 1 counts as 1."""
        self._places[item] = (tier, project_id, flow)
        self._tiers[tier].push(project_id, weight, flow, item)

    def take(self, usable: Callable[[ItemT], bool]) -> ItemT | None:
        """Removes the next item in order among those whose flow's first one is `usable`; None when there is none."""
        for queue in self._tiers.values():
            item = queue.take(usable)
            if item is not None:
                del self._places[item]
                return item
        return None

    def discard(self, item: ItemT) -> bool:
        """Removes the item; False when it does not wait."""
        place = self._places.pop(item, None)
        if place is None:
            return False
        tier, project_id, flow = place
        self._tiers[tier].remove(project_id, flow, item)
        return True


class _Project(Generic[ItemT]):
    """A project's flows, the next one in front; none is empty."""

    __slots__ = ("cost", "flows", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.cost = _COST
        self.flows: OrderedDict[Hashable, OrderedDict[ItemT, None]] = OrderedDict()

    def first(self, usable: Callable[[ItemT], bool]) -> tuple[Hashable, ItemT] | None:
        for flow, items in self.flows.items():
            item = next(iter(items))
            if usable(item):
                return flow, item
        return None


class _FairQueue(Generic[ItemT]):
    """One tier. A turn costs a look at every project that waits; there are no more than requests in the queue."""

    def __init__(self) -> None:
        self._now = 0
        self._projects: dict[str, _Project[ItemT]] = {}

    def push(self, project_id: str, weight: int, flow: Hashable, item: ItemT) -> None:
        cost = _COST // max(weight, 1)
        project = self._projects.get(project_id)
        if project is None:
            project = self._projects[project_id] = _Project(self._now + cost)
        project.cost = cost
        project.flows.setdefault(flow, OrderedDict())[item] = None

    def take(self, usable: Callable[[ItemT], bool]) -> ItemT | None:
        chosen: tuple[str, _Project[ItemT], Hashable, ItemT] | None = None
        for project_id, project in self._projects.items():
            if (chosen is None or project.tag < chosen[1].tag) and (first := project.first(usable)) is not None:
                chosen = (project_id, project, *first)
        if chosen is None:
            return None
        project_id, project, flow, item = chosen
        # Whoever was passed over for a while lags behind virtual time, and is not paid back for it.
        self._now = max(self._now, project.tag)
        project.tag = self._now + project.cost
        project.flows.move_to_end(flow)
        self.remove(project_id, flow, item)
        return item

    def remove(self, project_id: str, flow: Hashable, item: ItemT) -> None:
        project = self._projects[project_id]
        items = project.flows[flow]
        del items[item]
        if not items:
            del project.flows[flow]
            if not project.flows:
                del self._projects[project_id]


def _part(total: int, share: float) -> int:
    # The margin keeps a share of 0.1 of 30 from becoming 4.
    return max(1, math.ceil(total * share - 1e-9))


def _count_down(counts: dict[ItemT, int], name: ItemT) -> None:
    count = counts[name] - 1
    if count:
        counts[name] = count
    else:
        del counts[name]
