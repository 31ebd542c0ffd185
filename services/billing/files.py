"""Files that belong to the process that holds their lock, and to nobody once it is dead."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def create(folder: Path, name: Callable[[], str]) -> tuple[Path, int]:
    """A new file and its descriptor, locked by this process; `name` gives another name each time. Raises OSError."""
    while True:
        path = folder / name()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if lock(fd) and os.fstat(fd).st_nlink:
            return path, fd
        # Another process took the new file for a dead one's before it was locked.
        os.close(fd)


def claim(path: Path) -> int | None:
    """A locked descriptor of a file that a dead process left; None when its owner lives, or it is gone. Raises
    OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if lock(fd) and os.fstat(fd).st_nlink:
        return fd
    os.close(fd)
    return None


def lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
