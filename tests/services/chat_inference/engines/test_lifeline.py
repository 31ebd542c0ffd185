"""A child that is tied to its parent is gone when the parent was killed."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

from services.chat_inference.engines.lifeline import end_with_parent


def child(told: Connection) -> None:
    end_with_parent()
    told.send(os.getpid())
    time.sleep(600)


def parent(told: Connection) -> None:
    multiprocessing.get_context("spawn").Process(target=child, args=(told,)).start()
    time.sleep(600)


def test_a_tied_child_ends_with_its_killed_parent() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    killed = multiprocessing.get_context("spawn").Process(target=parent, args=(sender,))
    killed.start()
    assert receiver.poll(60)
    pid = receiver.recv()
    assert alive(pid)
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    until = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)
    receiver.close()
    sender.close()


def test_a_process_of_its_own_is_not_touched() -> None:
    end_with_parent()


def alive(pid: int) -> bool:
    """False for a process that is gone or only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
