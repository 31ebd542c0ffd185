"""Ends every process of a POSIX session, and proves it.

The Ray driver starts a session of its own, and everything below it (Ray's servers, the replicas, the processes
of their engines) stays in that session whatever happens to its parents. So "nothing is left behind" is one
question, and signals that a terminal sends to the platform's process group reach none of them.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

import psutil

POLL_S = 0.05


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent dies, where the system can (Linux).

    Otherwise they would end as zombies wherever the machine's first process reaps none, as in many containers.
    """
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def members(session_id: int) -> list[int]:
    """The processes of the session that are alive, the calling one not counted."""
    found: list[int] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == session_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return [pid for pid in found if pid != os.getpid()]


def end_session(session_id: int, timeout_s: float) -> list[int]:
    """Kills the session's processes until none is left. Blocks; returns those left after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while left := members(session_id):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
    return []


def reap() -> None:
    """Buries the children that have ended. Only for a process that waits for none of them elsewhere."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
