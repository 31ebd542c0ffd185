"""Becomes Envoy, which is told to end when the process that started it does, however that ends.

    python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT ...]

It is run as a script, with the standard library alone, so that it costs milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the process that started Envoy has ended")
    os.execv(command[0], command)  # noqa: S606 - becoming another program is what this is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
