"""What running requests have used so far, in a file beside the spool: a crash does not make them free.

The file belongs to the process that holds its lock. It is appended to, the last frame of a request counts, and a
frame without an organisation says that nothing is to be billed. Kept true: whoever takes up a dead process's file
does so after every record of that process is in the database, so that a record goes before a checkpoint of the same
request, which then changes nothing.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from google.protobuf.message import DecodeError

from modelplane.usage.v1.usage_pb2 import Usage
from services.billing import frames
from services.billing.files import claim, create

SUFFIX: Final = ".open"
# After it, while the file is begun anew.
BEGUN_SUFFIX: Final = ".new"
# The file is begun anew when it has this size and most of it is of requests that have ended.
COMPACT_BYTES: Final = 1024 * 1024


class Checkpoints:
    """The file of one process, which `token` tells from others', in `folder`; made when it is needed."""

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self._token = token
        self._path: Path | None = None
        self._fd = -1
        self._size = 0
        # By request id: the frame, and when it was written by time.monotonic(). The longest without news first.
        self._open: dict[str, tuple[bytes, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._open

    def keep(self, payloads: Sequence[tuple[str, bytes]]) -> None:
        """Keeps records by request id, in place of what was kept of these before. Raises OSError."""
        now_s = time.monotonic()
        added = [(request_id, frames.encode(payload)) for request_id, payload in payloads]
        self._append(b"".join([frame for _, frame in added]))
        for request_id, frame in added:
            self._open.pop(request_id, None)
            self._open[request_id] = (frame, now_s)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Of requests that are not billed. Raises OSError."""
        gone = [request_id for request_id in request_ids if self._open.pop(request_id, None)]
        if gone:
            self._append(b"".join([frames.encode(Usage(request_id=name).SerializeToString()) for name in gone]))

    def recorded(self, request_id: str) -> None:
        """Of a request whose record is safe: it goes before what is written here."""
        self._open.pop(request_id, None)

    def overdue(self, age_s: float) -> dict[str, bytes]:
        """The records of requests without news for so long: nobody will tell their end."""
        before_s = time.monotonic() - age_s
        found = {}
        for request_id, (frame, at_s) in self._open.items():
            if at_s > before_s:
                break
            found[request_id] = frames.payload_of(frame)
        return found

    def close(self) -> None:
        """Gives the file up; one of requests that are still open stays."""
        if self._path is None:
            return
        if not self._open:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._path, self._size = None, 0

    def _append(self, data: bytes) -> None:
        if self._path is None:
            self._path, self._fd = create(self._folder, lambda: f"{self._token}-{uuid4().hex[:8]}{SUFFIX}")
        elif self._size >= COMPACT_BYTES and self._size > 2 * sum(len(frame) for frame, _ in self._open.values()):
            self._compact(self._path)
        _write(self._fd, data, self._size)
        self._size += len(data)

    def _compact(self, path: Path) -> None:
        """Begins anew in a file beside it, which is there whole before it takes the old one's name."""
        beside, fd = create(self._folder, lambda: f"{self._token}-{uuid4().hex[:8]}{SUFFIX}{BEGUN_SUFFIX}")
        data = b"".join([frame for frame, _ in self._open.values()])
        try:
            _write(fd, data, 0)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._size = fd, len(data)


def take_up(path: Path) -> tuple[int, list[tuple[str, bytes]]] | None:
    """The open records of a dead process's file, and its descriptor, which is to be closed when they are safe and the
    file is gone. None when the process lives. Raises OSError."""
    if (fd := claim(path)) is None:
        return None
    found: dict[str, bytes] = {}
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    for item in frames.decode(data):
        if isinstance(item, frames.Damage):
            continue
        try:
            usage = Usage.FromString(item.payload)
        except DecodeError:
            continue
        found.pop(usage.request_id, None)
        if usage.attribution.organization_id:
            found[usage.request_id] = item.payload
    return fd, list(found.items())


def _write(fd: int, data: bytes, at: int) -> None:
    """All or nothing. Raises OSError."""
    end, rest = at, memoryview(data)
    try:
        while rest:
            written = os.pwrite(fd, rest, end)
            end, rest = end + written, rest[written:]
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, at)
        raise
