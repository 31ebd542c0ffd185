"""The write-ahead spool: records wait here, in files, until the database has them.

Kept true: an append returns when the operating system has its bytes, so that no death of a process loses them; a
file belongs to the process that holds its lock, and the files of a dead one are adopted by whoever comes next; bytes
that are no record are kept aside and logged; no more than `spool_bytes` lie on the disk.

A file is named by the time of its making, so files are drained in that order. It is deleted when it is drained;
the one that is written to is emptied instead. All methods belong to one event loop.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from prometheus_client import Counter, Gauge

from services import telemetry
from services.billing import frames
from services.billing.checkpoints import BEGUN_SUFFIX, Checkpoints, take_up
from services.billing.checkpoints import SUFFIX as OPEN_SUFFIX
from services.billing.files import claim, create
from services.billing.settings import BillingSettings
from services.faults import Unavailable

log = telemetry.logger(__name__)

RECORDS = Gauge("modelplane_spool_records", "Usage records that the database does not have yet.")
BYTES = Gauge("modelplane_spool_bytes", "Bytes of spool files.")
OLDEST = Gauge("modelplane_spool_oldest_seconds", "Age of the oldest usage record that waits for the database.")
SET_ASIDE = Counter("modelplane_spool_set_aside_bytes", "Bytes that were no valid usage record and were kept aside.")
TORN = Counter("modelplane_spool_torn_bytes", "Bytes of unacknowledged records cut off by a crash, dropped.")

SUFFIX = ".usage"
# Files of one process have its token in their names.
TOKEN_CHARACTERS = 8
RETRY_S = 1.0


class Segment:
    """One file of the spool, locked by this process."""

    def __init__(self, path: Path, fd: int, *, is_own: bool) -> None:
        self.path = path
        self.fd = fd
        # False for what a dead process left: this one held no money for it.
        self.is_own = is_own
        # Bytes of whole records written, and how many of them the database has.
        self.size = 0
        self.drained = 0
        self.records = 0
        # When the oldest record that waits was written, by time.monotonic().
        self.since_s = 0.0

    @staticmethod
    def create(folder: Path, token: str, *, is_own: bool = True) -> "Segment":
        """A new file of the process with this token. Raises OSError."""
        return Segment(*create(folder, lambda: f"{time.time_ns():020d}-{token}{SUFFIX}"), is_own=is_own)

    @staticmethod
    def adopt(path: Path) -> "Segment | None":
        """The file that a dead process left, or None when its owner lives or has drained it. Raises OSError."""
        if (fd := claim(path)) is None:
            return None
        segment = Segment(path, fd, is_own=False)
        status = os.fstat(fd)
        segment.size = status.st_size
        # An estimate for the metric: what only looks like a record is rare.
        segment.records = os.pread(fd, segment.size, 0).count(frames.MAGIC)
        segment.since_s = time.monotonic() - max(0.0, time.time() - status.st_mtime)
        return segment

    def write(self, data: bytes, records: int) -> None:
        """Adds whole frames, all or none. Raises OSError."""
        size, end = len(data), self.size
        try:
            written = os.pwrite(self.fd, data, end)
            while written < size:
                written += os.pwrite(self.fd, data[written:], end + written)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, self.size)
            raise
        if self.drained == self.size:
            self.since_s = time.monotonic()
        self.size = end + size
        self.records += records

    def empty(self) -> None:
        """Begins the file anew. Raises OSError."""
        os.ftruncate(self.fd, 0)
        self.size = self.drained = self.records = 0

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


class Spool:
    """The spool of one process in a folder that others may share."""

    def __init__(self, folder: Path, settings: BillingSettings) -> None:
        self._folder = folder
        self._settings = settings
        # Oldest first; the one that is written to, if any, is the last.
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._bytes = 0
        self._unsynced: set[Segment] = set()
        self._written = asyncio.Event()
        self._filled = asyncio.Event()
        # Whether the last write failed, and when that was, by time.monotonic().
        self._failing = False
        self._tried_s = -RETRY_S
        self._closed = False
        self._token = uuid4().hex[:8]
        self._checkpoints = Checkpoints(folder, self._token)

    async def open(self) -> None:
        """Makes the folder and adopts what dead processes left. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.adopt()

    def append(self, payloads: list[bytes]) -> None:
        """Adds records, all or none; they are the operating system's when this returns.

        It takes two microseconds: less than to gather the records of a turn of the event loop and to tell who waits.
        Faults: spool_full, spool_unwritable, shutting_down.
        """
        if self._closed:
            raise Unavailable("shutting_down", "Billing is shutting down.")
        # Mostly it is one.
        data = frames.encode(payloads[0]) if len(payloads) == 1 else b"".join(map(frames.encode, payloads))
        size = len(data)
        if self._bytes + size > self._settings.spool_bytes:
            raise self._full()
        segment = self._active
        try:
            if segment is None or segment.size + size > self._settings.segment_bytes:
                segment = self._begin()
            segment.write(data, len(payloads))
        except OSError as error:
            self._fail(error)
            raise _unwritable(error) from error
        if self._failing:
            self._succeed()
        else:
            self._tried_s = time.monotonic()
        self._bytes += size
        if segment not in self._unsynced:
            self._unsynced.add(segment)
            self._written.set()
        self._filled.set()

    def _begin(self) -> Segment:
        """The file to write to next: a new one, unless nothing is in the one there is. Raises OSError."""
        active = self._active
        if active is None or active.size:
            active = self._active = Segment.create(self._folder, self._token)
            self._segments.append(active)
        return active

    def checkpoint(self, payloads: list[tuple[str, bytes]]) -> None:
        """Keeps what running requests have used, by request id. Faults: spool_full, spool_unwritable."""
        self.refuse_if_full()
        try:
            self._checkpoints.keep(payloads)
        except OSError as error:
            self._fail(error)
            raise _unwritable(error) from error
        self._succeed()

    def forget(self, request_ids: list[str]) -> None:
        """Of requests that are not billed."""
        try:
            self._checkpoints.forget(request_ids)
        except OSError as error:
            self._fail(error)

    def recorded(self, request_id: str) -> None:
        """Of a request whose record was appended."""
        self._checkpoints.recorded(request_id)

    def record_overdue(self, age_s: float) -> list[bytes]:
        """Records what was kept of requests whose end nobody tells. Faults: spool_full, spool_unwritable."""
        overdue = self._checkpoints.overdue(age_s)
        payloads = list(overdue.values())
        if payloads:
            log.warning("requests never ended and are billed as they were last seen", requests=len(payloads))
            self.append(payloads)
            for request_id in overdue:
                self._checkpoints.recorded(request_id)
        return payloads

    def refuse_if_full(self) -> None:
        """Whether what is served now could be recorded; asks the disk only when nothing was written for a second.

        Faults: spool_full, spool_unwritable.
        """
        if self._bytes >= self._settings.spool_bytes:
            raise self._full()
        if time.monotonic() - self._tried_s >= RETRY_S:
            try:
                _probe(self._folder)
            except OSError as error:
                self._fail(error)
            else:
                self._succeed()
        if self._failing:
            raise Unavailable(
                "spool_unwritable", "Usage cannot be recorded: the disk takes nothing.", retry_after_ms=5000
            )

    def _fail(self, error: OSError) -> None:
        if not self._failing:
            log.error("the spool cannot be written", folder=self._folder, error=error)
        self._failing, self._tried_s = True, time.monotonic()

    def _succeed(self) -> None:
        if self._failing:
            log.info("the spool can be written again", folder=self._folder)
        self._failing, self._tried_s = False, time.monotonic()

    # ------------------------------------------------------------------------------------------- draining

    @property
    def segments(self) -> int:
        return len(self._segments)

    async def filled(self) -> None:
        """Waits until there is something to drain."""
        await self._filled.wait()

    async def oldest(self) -> tuple[Segment, bytes, int] | None:
        """The oldest file with records to drain, its bytes from `segment.drained` on, and where they end in it.

        None when all is drained. One caller at a time, which reports by `advance` and `finish`. Raises OSError.
        """
        while self._segments:
            segment = self._segments[0]
            end = segment.size
            if waiting := end - segment.drained:
                data = await asyncio.to_thread(os.pread, segment.fd, waiting, segment.drained)
                if len(data) < waiting:
                    log.error("a spool file is shorter than it was", path=segment.path, bytes=waiting - len(data))
                return segment, data, end
            if segment is self._active:
                break
            self._drop(segment)
        self._filled.clear()
        return None

    def advance(self, segment: Segment, drained: int, records: int) -> None:
        """The database has `records` more of the segment, up to the byte `drained`."""
        segment.drained = drained
        segment.records = max(0, segment.records - records)

    def finish(self, segment: Segment, end: int, read_s: float) -> None:
        """All that was read at `read_s` (time.monotonic()) of the segment, up to the byte `end`, is dealt with.

        Raises OSError.
        """
        segment.drained = end
        segment.since_s = read_s
        if segment.size > end:
            return
        if segment is self._active:
            self._bytes -= segment.size
            segment.empty()
        else:
            self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        self._segments.remove(segment)
        self._unsynced.discard(segment)
        self._bytes -= segment.size
        segment.delete()

    def set_aside(self, segment: Segment, offset: int, data: bytes, why: str) -> None:
        """Keeps bytes that the database cannot get, for a person to look at. Raises OSError."""
        folder = self._folder / "aside"
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / f"{segment.path.stem}-{offset}"
        path.write_bytes(data)
        SET_ASIDE.inc(len(data))
        log.error("usage was set aside", path=path, bytes=len(data), why=why)

    async def adopt(self) -> None:
        """Takes over the files of processes that died. Raises OSError."""
        ours = {segment.path for segment in self._segments}
        found = await asyncio.to_thread(_orphans, self._folder, ours)
        await self._take_up_checkpoints()
        if not found:
            return
        self._segments = found + self._segments
        self._bytes += sum(segment.size for segment in found)
        self._filled.set()
        log.info(
            "adopted spool files of a process that died",
            files=len(found),
            records=sum(segment.records for segment in found),
        )

    async def _take_up_checkpoints(self) -> None:
        """Records what dead processes left open, once all that they have recorded is in the database, and all that was
        recorded here since: the requests may have gone on."""
        if any(segment.size > segment.drained for segment in self._segments):
            return
        for path in self._folder.glob(f"*{OPEN_SUFFIX}"):
            is_undrained = any(self._folder.glob(f"*-{path.name[:TOKEN_CHARACTERS]}{SUFFIX}"))
            if is_undrained or _age_s(path) < self._settings.orphan_s:
                continue
            if (taken := await asyncio.to_thread(take_up, path)) is None:
                continue
            fd, found = taken
            payloads = [payload for request_id, payload in found if request_id not in self._checkpoints]
            try:
                if payloads:
                    log.info("requests that a process left open are recorded", requests=len(payloads))
                    await self._keep_apart(payloads)
                path.unlink(missing_ok=True)
            except Unavailable as fault:
                log.warning("requests that a process left open wait", error=fault)
            finally:
                os.close(fd)
        for path in self._folder.glob(f"*{OPEN_SUFFIX}{BEGUN_SUFFIX}"):
            # It died while it began a file anew; the old one is whole.
            if (begun := claim(path)) is not None:
                path.unlink(missing_ok=True)
                os.close(begun)

    async def _keep_apart(self, payloads: list[bytes]) -> None:
        """Records of requests that this process held no money for, on the disk when it returns. Faults: spool_full,
        spool_unwritable."""
        data = b"".join([frames.encode(payload) for payload in payloads])
        if self._bytes + len(data) > self._settings.spool_bytes:
            raise self._full()
        try:
            segment = Segment.create(self._folder, self._token, is_own=False)
            self._segments.insert(0, segment)
            segment.write(data, len(payloads))
        except OSError as error:
            self._fail(error)
            raise _unwritable(error) from error
        self._bytes += len(data)
        self._unsynced.add(segment)
        self._filled.set()
        await self.sync()

    # --------------------------------------------------------------------------------------- safety, health

    async def keep_synced(self) -> None:
        """Forces what was written to the disk, for ever, at most every `fsync_interval_ms`."""
        while True:
            await self._written.wait()
            await asyncio.sleep(self._settings.fsync_interval_ms / 1000)
            await self.sync()

    async def sync(self) -> None:
        """Forces what was written to the disk."""
        self._written.clear()
        segments, self._unsynced = self._unsynced, set()
        try:
            # Copies: a file may be drained and closed meanwhile.
            fds = [os.dup(segment.fd) for segment in segments]
            await asyncio.to_thread(_fsync, fds, self._folder)
        except OSError as error:
            # The system may have dropped the pages: what comes next goes into a fresh file.
            log.error("the spool cannot be forced to the disk", folder=self._folder, error=error)
            self._active = None

    async def check(self) -> None:
        """Whether a record could be kept now. Faults: spool_full, spool_unwritable."""
        if self._bytes >= self._settings.spool_bytes:
            raise self._full()
        try:
            await asyncio.to_thread(_probe, self._folder)
        except OSError as error:
            self._fail(error)
            raise _unwritable(error) from error
        self._succeed()

    def observe(self) -> None:
        """Brings the metrics up to date."""
        waiting = [segment for segment in self._segments if segment.size > segment.drained]
        RECORDS.set(sum(segment.records for segment in waiting))
        BYTES.set(self._bytes)
        OLDEST.set(time.monotonic() - min(segment.since_s for segment in waiting) if waiting else 0.0)

    async def close(self) -> None:
        """Writes and syncs what is left and gives the files up; those that are not drained stay. Idempotent."""
        self._closed = True
        await self.sync()
        self._checkpoints.close()
        for segment in self._segments:
            if segment.size > segment.drained:
                os.close(segment.fd)
            else:
                segment.delete()
        self._segments, self._active = [], None

    def _full(self) -> Unavailable:
        return Unavailable(
            "spool_full", "Usage cannot be recorded: the database has been away for too long.", retry_after_ms=5000
        )


def _unwritable(error: OSError) -> Unavailable:
    return Unavailable(
        "spool_unwritable", f"Usage cannot be recorded: {error.strerror or 'disk error'}.", retry_after_ms=5000
    )


def _age_s(path: Path) -> float:
    """Since it was last written, whatever was done to the clock; 0 when it is gone."""
    try:
        return abs(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _orphans(folder: Path, ours: set[Path]) -> list[Segment]:
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if path not in ours)
    return [segment for path in paths if (segment := Segment.adopt(path))]


def _fsync(fds: list[int], folder: Path) -> None:
    """Forces the files, and the folder for the names of new ones, to the disk; closes `fds`."""
    try:
        fds.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
        for fd in fds:
            os.fsync(fd)
    finally:
        for fd in fds:
            os.close(fd)


def _probe(folder: Path) -> None:
    with TemporaryFile(dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
