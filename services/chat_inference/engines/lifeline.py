"""Ends a child process with the process that started it, so that a replica that is killed leaves nothing behind.

A killed process cannot tell its children, so on Linux the kernel is asked to; elsewhere children of a killed
replica live on.
"""

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """From now on this process is killed when the thread that started it ends. For children of multiprocessing."""
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if not parent.is_alive():
        os._exit(1)
