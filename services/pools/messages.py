"""What the platform and its Ray driver process say to each other: one JSON object a line, over the driver's pipes.

The driver is a process of its own because Ray takes liberties with the process that connects to it (signal
handlers, aborting when the cluster is lost) that a process serving requests cannot allow.
"""

import msgspec


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Start a replica. `variables` is its environment; it loads the model that they name."""

    replica_id: str
    variables: dict[str, str]
    cpus: float
    gpus: float
    # File that takes what the replica's processes print.
    log_file: str


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Let a replica finish what it has, and end."""

    replica_id: str


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """End a replica's process now."""

    replica_id: str


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """Ray is there."""

    duration_ms: int


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """What a starting replica does now, in words for people."""

    replica_id: str
    pid: int
    phase: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A replica is warm and has registered. `address` is its gRPC server's, `host:port`."""

    replica_id: str
    pid: int
    address: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A replica is gone; `error` says why, and is empty when it was asked to go."""

    replica_id: str
    error: str


Command = Start | Drain | Kill
Status = Phase | Ready
Event = Connected | Phase | Ready | Ended


class DriverOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the driver finds Ray, or starts it."""

    # "" starts Ray here, with everything it writes under `folder`.
    address: str
    folder: str
    token_file: str
    object_store_bytes: int
    stop_timeout_s: float
