"""CPU and memory as the kernel counts them."""

import os
import subprocess
import sys
import time

from benchmarks.processes import memory_bytes, tree

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\n"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nsys.stdin.read()\n"


def test_a_child_that_ended_is_counted_in_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        deadline_s = time.monotonic() + 30
        while len(tree(parent.pid)) > 1 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert tree(parent.pid)[parent.pid].cpu_s >= 0.3
        assert memory_bytes([parent.pid]) > 1_000_000
    assert tree(parent.pid) == {}
    assert memory_bytes([parent.pid]) == 0


def test_the_tree_of_a_process_holds_its_children() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        deadline_s = time.monotonic() + 30
        # Popen returns when the new program's descriptors are closed, a moment before its command line stands.
        while not (family := tree(os.getpid()))[child.pid].command and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert family[child.pid].command == "/bin/cat"
        assert family[child.pid].parent == os.getpid()
