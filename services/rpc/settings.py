"""Settings of the gRPC adapter."""

from typing import ClassVar

from services.settings import Group


class RpcSettings(Group, frozen=True, kw_only=True):
    """How this process listens for other services, and how it calls them."""

    group: ClassVar[str] = "rpc"

    listen: str = "127.0.0.1:0"
    """`host:port` of the gRPC server, where port 0 takes a free one; or `unix:/path` of a socket file."""

    advertise: str | None = None
    """`host:port` under which other processes reach this server. Default: where it listens."""

    token: str = ""
    """Secret that every call between services carries; all processes share it. Empty: calls are not checked."""

    timeout_s: float = 10.0
    """Deadline of a call that inherits none."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Largest message; a prompt of a million token ids takes about 4 MiB."""

    keepalive_ms: int = 20_000
    """Time between pings on an open connection, so that a dead peer is noticed."""
