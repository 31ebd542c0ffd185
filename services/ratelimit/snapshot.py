"""The buckets, and what was learned of output, in a file: a restart hands out no fresh burst and estimates as before.

The file is replaced as a whole: a crash while writing leaves the one before. It holds times until full, and the
time that passed while nothing ran counts as refilling; a wall clock set back meanwhile counts as no time. Its size
is bounded by the tenants of the last day: a full bucket is no state, and learned expectations are bounded.
"""

import os
from pathlib import Path

import msgspec

from services.ratelimit.buckets import MemoryBuckets, Standing
from services.ratelimit.expectations import Expectations, Learned


class Snapshot(msgspec.Struct, frozen=True):
    """The buckets that were not full at `taken_ns` (Unix nanoseconds), and all expectations."""

    taken_ns: int
    buckets: list[Standing]
    expectations: list[Learned]


def capture(buckets: MemoryBuckets | None, expectations: Expectations, now_ns: int) -> Snapshot:
    """Without buckets when they live elsewhere."""
    return Snapshot(now_ns, list(buckets.states()) if buckets is not None else [], list(expectations.states()))


def save(snapshot: Snapshot, path: Path) -> None:
    """Replaces the file. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this process: limiters of several may have one home.
    written = path.with_name(f"{path.name}.{os.getpid()}")
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


def restore(snapshot: Snapshot, buckets: MemoryBuckets | None, expectations: Expectations, now_ns: int) -> None:
    elapsed_ns = max(0, now_ns - snapshot.taken_ns)
    if buckets is not None:
        for standing in snapshot.buckets:
            buckets.restore(standing, elapsed_ns)
    expectations.restore(snapshot.expectations)
