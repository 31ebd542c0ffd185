"""Settings of the pools: where Ray runs, and when replicas are added, taken away and replaced."""

from typing import ClassVar

from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """Where Ray runs, and when replicas are added, taken away and replaced."""

    group: ClassVar[str] = "pools"

    ray_address: str = ""
    """Ray cluster to use, `host:port`. Empty: one is started on this machine and stopped with the platform."""

    object_store_bytes: int = 100_000_000
    """Shared memory of the Ray that is started here. Replicas pass no data through it, so Ray's own share of
    the machine's memory would be wasted."""

    interval_ms: int = 1000
    """Time between two looks at the pools. Replicas that end are dealt with at once, not at the next look."""

    queued_per_replica: int = 4
    """Waiting requests per replica above which a pool is too small."""

    scale_up_after_ms: int = 5000
    """How long a pool must be too small before it grows; a replica takes longer than that to load."""

    scale_down_after_ms: int = 300_000
    """How long a pool must be larger than needed before it shrinks. Far longer than a replica takes to load."""

    lost_after_ms: int = 30_000
    """How long the router may miss a ready replica before it is killed and replaced: its process is there, but
    hangs. Longer than any stall that it may recover from."""

    backoff_ms: int = 1000
    """Pause after the second failed start in a row, doubled by each further one."""

    backoff_max_ms: int = 60_000
    """Longest pause between failed starts."""

    stop_timeout_ms: int = 10_000
    """How long Ray may take to stop before its processes are killed."""
