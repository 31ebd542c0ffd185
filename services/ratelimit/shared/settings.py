"""Where shared buckets live, how far a gateway may decide ahead of them, and what it does without them."""

from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from services.settings import Group

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class ValkeySettings(Group, frozen=True, kw_only=True):
    """Needed as soon as more than one gateway runs: without it each gateway has buckets of its own."""

    group: ClassVar[str] = "valkey"

    url: str | None = None
    """Valkey (or Redis 7) that holds the buckets of all gateways: `valkey://[[user]:password@]host[:port][/database]`,
    `valkeys://` (or `rediss://`) with TLS, `unix:///path`. Default: none; the buckets are in memory, which is right
    for one gateway."""

    ca_file: Path | None = None
    """File with the authority that has signed Valkey's certificate; it is read at every connection. Default: those
    that this machine trusts."""

    tls_folder: Path | None = None
    """Folder with `tls.crt` and `tls.key` for a Valkey that asks for a certificate. Default: none is shown."""

    lease_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 150
    """Milliseconds for which a gateway may decide on quota that it took in advance: what a killed gateway takes with
    it, at most. 0: every decision asks Valkey."""

    lease_share: Share = 0.1
    """The most that one lease may take of what remains in a bucket, so that one gateway leaves enough to others."""

    settle_ms: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50
    """Milliseconds for which corrections are collected and sent together. A decision that asks Valkey takes those of
    its organisation along, so that no client waits for what it has just given back."""

    timeout_ms: Annotated[int, msgspec.Meta(ge=1)] = 250
    """Milliseconds after which Valkey counts as out of reach."""

    outage_share: Share = 0.1
    """The share of every limit that each gateway grants by itself while Valkey is out of reach: one over the number
    of gateways keeps the limits."""
