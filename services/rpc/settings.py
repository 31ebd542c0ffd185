"""Settings of the gRPC adapter."""

from pathlib import Path
from typing import ClassVar

from services.settings import Group


class RpcSettings(Group, frozen=True, kw_only=True):
    """How this process listens for other services, and how it calls them."""

    group: ClassVar[str] = "rpc"

    listen: str = "127.0.0.1:0"
    """`host:port` of the gRPC server, where port 0 takes a free one; or `unix:/path` of a socket file."""

    advertise: str | None = None
    """`host:port` under which other processes reach this server. Default: where it listens."""

    tls_folder: Path | None = None
    """Folder with `tls.crt`, `tls.key` and `ca.crt`: this process's certificate, for the name `modelplane.internal`,
    and the authority that has signed everybody's. With it every connection is mutual TLS, except over a socket file.
    Renewed files are taken up within a second or two. Default: no TLS."""

    health_listen: str = ""
    """`host:port` of a second server without TLS that offers gRPC's health service and nothing else, for probes.
    Services: `liveness` (the process answers), `serving` (between the end of the start and the beginning of the stop),
    `readiness` (serving, and everything it depends on answers). Default: none."""

    token: str = ""
    """Secret that every call between services carries; all processes share it. Empty: calls are not checked."""

    timeout_s: float = 10.0
    """Deadline of a call that inherits none."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Largest message; a prompt of a million token ids takes about 4 MiB."""

    keepalive_ms: int = 20_000
    """Time between pings on an open connection, so that a dead peer is noticed."""

    connection_age_s: float = 0.0
    """Seconds after which clients are asked to connect anew and so to look up the name again: processes that were added
    behind it get their share within this time. Streams that are open go on where they are. 0: connections last, which
    is right where each service is one process."""
