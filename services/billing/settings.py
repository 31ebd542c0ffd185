"""Billing's settings: how safe the spool is, how big it may grow, how often it is emptied."""

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

    drain_records: Positive = 500
    """Most records in one database transaction."""

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
