"""The router's settings: how long it trusts a silent replica, how much it lets wait, and what one caller may take."""

from typing import ClassVar

from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """How long the router trusts a silent replica, how much it lets wait, and what one caller may take."""

    group: ClassVar[str] = "router"

    heartbeat_timeout_ms: int = 5000
    """Milliseconds without a heartbeat after which a replica is lost. Replicas send one a second, so the
    default forgives four that went missing on a busy machine."""

    settle_ms: int = 5000
    """Milliseconds after its start in which requests for models that nobody has told the router of wait, instead of
    being told that there is no such model: five heartbeats, in which all replicas have registered again."""

    placement_grace_ms: int = 5000
    """Milliseconds that a placement may be unknown to its replica before its slot is taken back. It covers
    the way from Place to the replica's next heartbeat; a gateway that died leaks a slot only this long."""

    queue_size: int = 1024
    """Requests that may wait for a slot, per pool. One more is refused: a longer queue only makes more
    clients wait for an answer that comes too late."""

    key_share: float = 0.9
    """The part of a pool's slots, and of its queue, that one key may hold, rounded up: pools of ten slots and more
    keep some free of any one key. Also when nobody else asks: a slot is free at once for whoever comes, not when
    one of the key's long answers ends. 1 lets a key fill the pool, for machines with a single user."""

    project_share: float = 0.95
    """The same for all keys of a project together. More than `key_share`, so that a project that has run one key
    into its share still works with another; it leaves something free in pools of twenty slots and more."""

    queue_timeout_ms: int = 120_000
    """Milliseconds that a request waits for a slot. Longer than a replica needs to be replaced, so that a
    crash of the only replica delays requests instead of failing them."""

    retry_after_ms: int = 1000
    """Milliseconds after which a client refused for overload is asked to come back."""
