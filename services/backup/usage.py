"""Usage that is on its way to the ledger: copied from a spool that others write to, and brought into a ledger.

Kept true: every record that was acknowledged before the copy began is in it, or in the database once the copy is
made, since files are read in the order in which records move: from what running requests have used, to what was
recorded, to the database. Most of it is in both, and is billed once: the ledger knows requests by their ids.
"""

from pathlib import Path
from typing import Final

import msgspec

from services.billing import checkpoints, frames, spool
from services.billing.service import serving
from services.billing.settings import BillingSettings
from services.home import write_private
from services.storage import Database

ASIDE: Final = "aside"
# First what was recorded, then what the same processes had left open.
PASSES: Final = 2


def copy(source: Path, target: Path) -> int:
    """Whole records alone; the end of a file may be half written. Returns how many there are. Raises OSError."""
    copied = 0
    for suffix in (checkpoints.SUFFIX, spool.SUFFIX):
        for path in sorted(source.glob(f"*{suffix}")):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # The database has it.
            records = [item.payload for item in frames.decode(data) if isinstance(item, frames.Record)]
            if records:
                copied += len(records)
                write_private(target / path.name, b"".join(map(frames.encode, records)))
    for path in sorted((source / ASIDE).glob("*")):
        write_private(target / ASIDE / path.name, path.read_bytes())
    return copied


async def bring_in(folder: Path, database: Database, settings: BillingSettings) -> int:
    """Books what lies in the folder; returns how many files the ledger did not take. Raises OSError. Fault:
    database_unavailable."""
    # Nobody is left who could tell how a request went on.
    settings = msgspec.structs.replace(settings, orphan_s=0)
    for _ in range(PASSES):
        async with serving(folder, database, settings) as billing:
            await billing.drain()
    return waiting(folder)


def waiting(folder: Path) -> int:
    """Files of usage in a spool's folder."""
    return sum(1 for suffix in (checkpoints.SUFFIX, spool.SUFFIX) for _ in folder.glob(f"*{suffix}"))
