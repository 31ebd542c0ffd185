"""A network of its own for this process and everything it starts afterwards, so that no packet leaves the machine.

Played pods have addresses that do not exist, and a test that called one would ask the machine's gateway for it. Kept
true: inside, only the loopback device is there until somebody adds more; the network is gone when the last process in
it has ended, so that nothing has to be put away; what was open before stays open.

A namespace belongs to a thread: enter before threads start, and call `isolated` from the main thread.
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000


@contextmanager
def isolated() -> Iterator[None]:
    """Inside, this thread is in a new network with nothing but loopback; afterwards it is back. Needs root.

    Raises PermissionError without it.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET))
        try:
            ip("link", "set", "lo", "up")
            # Addresses of played pods end here instead of at a gateway.
            ip("route", "add", "local", "10.244.0.0/15", "dev", "lo")
            yield
        finally:
            enter(before)
    finally:
        os.close(before)


def enter(namespace: int) -> None:
    """Puts this thread into the network of an open /proc/…/ns/net."""
    _checked(ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET))


def ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
