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
    # File that takes what the replica's processes print; a relative one lies in the home of the replica's machine.
    log_file: str
    resources: dict[str, float] = {}
    # What the platform wants to be told of it again, should another driver find it.
    model: str = ""
    generation: str = ""
    started_at_ms: int = 0


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Let a replica finish what it has, and end."""

    replica_id: str


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """End a replica's process now."""

    replica_id: str


class Found(msgspec.Struct, frozen=True):
    """A replica that runs on the cluster already: an earlier driver started it."""

    replica_id: str
    model: str
    generation: str
    started_at_ms: int
    draining: bool


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """Ray is there, and with it these replicas."""

    duration_ms: int
    found: tuple[Found, ...] = ()


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """A replica has no process yet. `crowded`: there would be room for it, but others take it."""

    replica_id: str
    reason: str
    crowded: bool


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """What a starting replica does now, in words for people. `node_ip` and `node_name` are its Ray node's."""

    replica_id: str
    pid: int
    phase: str
    node_ip: str = ""
    node_name: str = ""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A replica is warm and has registered. `address` is its gRPC server's, `host:port`."""

    replica_id: str
    pid: int
    address: str
    node_ip: str = ""
    node_name: str = ""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A replica is gone; `error` says why, and is empty when it was asked to go."""

    replica_id: str
    error: str


Command = Start | Drain | Kill
Status = Phase | Ready
Event = Connected | Waiting | Phase | Ready | Ended


class DriverOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the driver finds Ray, or starts it."""

    # "" starts Ray here, with everything it writes under `folder`.
    address: str
    folder: str
    # The secret that Ray's processes ask of one another; "" leaves that to Ray's own variables.
    token_file: str
    object_store_bytes: int
    stop_timeout_s: float
    # On a cluster: under which name replicas are kept there, and how long they work on without a driver.
    namespace: str = "modelplane"
    abandoned_after_s: float = 0.0
    # Where replicas listen on a Ray that is started here; "" for socket files in `folder`.
    replica_host: str = ""
