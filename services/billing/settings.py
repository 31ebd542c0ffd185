"""Billing's settings: how safe the spool is, how big it may grow, how often it is emptied, and what may be spent."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group

Positive = Annotated[int, msgspec.Meta(ge=1)]


class BillingSettings(Group, frozen=True, kw_only=True):
    """How usage is kept until the ledger has it. The spool lies in the folder `spool` of MODELPLANE_HOME."""

    group: ClassVar[str] = "billing"

    fsync_interval_ms: Annotated[int, msgspec.Meta(ge=0)] = 50
    """Milliseconds between forcing the spool to the disk, for all records of that time together. A record is
    acknowledged when the operating system has it, which survives the death of any process; only a power cut or
    a crash of the machine can cost the last `fsync_interval_ms`."""

    drain_interval_ms: Annotated[int, msgspec.Meta(ge=0)] = 1000
    """Milliseconds that records gather before they go to the database together."""

    drain_records: Positive = 4_000
    """Most records in one database transaction, which holds the locks of their organisations' money for about 50
    microseconds a record; the more, the less each of them costs."""

    retry_ms: Positive = 5000
    """Longest pause in milliseconds between attempts while the database is away; it begins at 100."""

    spool_bytes: Positive = 512 * 1024 * 1024
    """Most disk space of records that the database has not taken, in bytes; beyond it nothing is recorded and
    so nothing served. A record takes about 200 bytes: the default holds the usage of 2.5 million requests."""

    segment_bytes: Positive = 8 * 1024 * 1024
    """Size at which a new spool file is begun, in bytes. A file is deleted when the database has all of it."""

    close_ms: Positive = 5000
    """Longest time in milliseconds that the end waits for the database to take what is left. Records that it
    does not take stay in the spool for the next start."""

    tier_caps: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(,[0-9]{1,9}){5}$")] = "100,100,500,1000,5000,200000"
    """What an organisation may spend in a calendar month (UTC), in dollars, by its usage tier: Free first, then tiers
    1 to 5. Its own spend limit counts where it is lower."""

    lease_s: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    """Seconds that money leased from the database lasts; leases are renewed well before. So long is missing what a
    killed process had leased, and so long at the most requests are served while the database is away."""

    orphan_s: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Seconds without news after which what a dead process knew of running requests is billed. Their gateways may be
    alive and go on to tell the process that takes its place: longer than any model needs for a token, and than
    MODELPLANE_GATEWAY_SETTLE_TIMEOUT_S, for which they try to tell an end."""

    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """Seconds that a request waits at most, where what is left does not cover it, for others to end and to give back
    what they did not use."""

    hold_s: Annotated[float, msgspec.Meta(ge=1)] = 900.0
    """Seconds after which what is held for a request comes back when nobody has told its end; longer than any request
    takes."""
