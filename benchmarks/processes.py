"""What processes cost, from the kernel's own accounting in /proc: CPU time and memory of a process and its children.

CPU is user plus system time of the live processes and of the children that they have waited for, so that a
process that ends between two readings is still counted (in its parent). The kernel counts it exactly and shows
it in ticks of 10 ms, which bounds the precision of a difference.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A live process at one moment."""

    pid: int
    parent: int
    command: str
    cpu_s: float


def processes() -> dict[int, Process]:
    """All live processes of the machine by pid."""
    found = (_process(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def tree(root: int) -> dict[int, Process]:
    """The process and all its descendants by pid; empty when it is gone."""
    everything = processes()
    children: dict[int, list[int]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: dict[int, Process] = {}
    pending = [root]
    while pending:
        pid = pending.pop()
        if pid in everything:
            found[pid] = everything[pid]
            pending += children.get(pid, [])
    return found


def memory_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: pages shared by several processes are divided among them, so that sums are right."""
    return sum(_pss_bytes(pid) for pid in pids)


def _process(pid: int) -> Process | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces; the fields after it are state, parent, …, user time being the 12th.
    fields = stat.rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(pid, int(fields[1]), command, ticks / os.sysconf("SC_CLK_TCK"))


def _pss_bytes(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
