"""Settings of the pools: where Ray runs, and when replicas are added, taken away and replaced."""

from pathlib import Path
from typing import ClassVar

from services.settings import Group


class Settings(Group, frozen=True, kw_only=True):
    """Where Ray runs, and when replicas are added, taken away and replaced."""

    group: ClassVar[str] = "pools"

    ray_address: str = ""
    """Ray cluster to use, `host:port`. This process joins it as a node of its own that offers nothing. Its replicas
    outlive this process, and the next one takes them over. Empty: a Ray is started on this machine and stopped with
    the platform, and with it all replicas."""

    ray_token_file: Path | None = None
    """File with the token of a Ray cluster that asks for one. Default: as Ray's own variables say (RAY_AUTH_MODE,
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH)."""

    ray_namespace: str = "modelplane"
    """Under which name replicas are kept on a Ray cluster. Each platform that shares a cluster needs its own."""

    replica_host: str = ""
    """Address that replicas listen on when Ray is started here, such as a pod's. Empty: socket files, which only this
    machine reaches."""

    object_store_bytes: int = 100_000_000
    """Shared memory of the Ray that is started here. Replicas pass no data through it, so Ray's own share of
    the machine's memory would be wasted."""

    interval_ms: int = 1000
    """Time between two looks at the pools. Replicas that end are dealt with at once, not at the next look."""

    queued_per_replica: int = 4
    """Waiting requests per replica above which a pool is too small."""

    busy_ratio: float = 0.9
    """The part of its slots above which a pool is too small. It is larger than needed when one replica fewer would
    have less than half of its slots taken."""

    scale_up_after_ms: int = 5000
    """How long a pool must be too small before it grows; a replica takes longer than that to load."""

    scale_down_after_ms: int = 300_000
    """How long a pool must be larger than needed before it shrinks. Far longer than a replica takes to load."""

    crowded_after_ms: int = 60_000
    """How long the successor of an outdated replica waits for room before that replica makes room for it. On a
    cluster that gets new machines when they are needed, longer than one takes to come."""

    lost_after_ms: int = 30_000
    """How long the router may miss a ready replica before it is killed and replaced: its process is there, but
    hangs. Longer than any stall that it may recover from."""

    abandoned_after_ms: int = 3_600_000
    """How long a replica on a cluster works on without hearing of this service before it finishes what it has and
    ends, so that a platform that is gone leaves nothing behind. 0: for ever."""

    backoff_ms: int = 1000
    """Pause after the second failed start in a row, doubled by each further one."""

    backoff_max_ms: int = 60_000
    """Longest pause between failed starts."""

    stop_timeout_ms: int = 10_000
    """How long Ray may take to stop before its processes are killed."""
