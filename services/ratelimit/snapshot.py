"""The buckets in a file, so that a restart does not hand out a fresh burst.

The file is replaced as a whole: a crash while writing leaves the one before. It holds times until full, and the
time that passed while nothing ran counts as refilling; a wall clock set back meanwhile counts as no time.
"""

import os
from pathlib import Path

import msgspec

from services.ratelimit.limits import AccountState, Limits


class Snapshot(msgspec.Struct, frozen=True):
    """The accounts that were not full at `taken_ns` (Unix nanoseconds)."""

    taken_ns: int
    accounts: list[AccountState]


def capture(limits: Limits, now_ns: int) -> Snapshot:
    return Snapshot(now_ns, list(limits.states(now_ns)))


def save(snapshot: Snapshot, path: Path) -> None:
    """Replaces the file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(path.name + ".new")
    with written.open("wb") as file:
        file.write(msgspec.json.encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)


def load(path: Path) -> Snapshot | None:
    """The last snapshot, or None when there is none. Raises OSError, or msgspec.DecodeError for a broken file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None


def restore(snapshot: Snapshot, limits: Limits, now_ns: int) -> None:
    elapsed_ns = max(0, now_ns - snapshot.taken_ns)
    for state in snapshot.accounts:
        limits.restore(state, elapsed_ns, now_ns)
