"""Becomes PostgreSQL: leaves root, ties its life to its parent, then execs `initdb` or `postgres`.

    python -I -S launch.py PARENT_PID [OWNED_PATH ...] -- PROGRAM [ARGUMENT ...]

It exists because PostgreSQL refuses to run as root, while a checkout, its environment and its home may
all lie below directories that only root may enter. It is run as a script, with the standard library
alone, so that it costs milliseconds. What it keeps true:

- Started as root, the program runs as user 1000 of a user namespace which maps to root outside: on disk
  nothing changes hands, so every path stays reachable. Where namespaces are refused (a container, say) it
  runs as `nobody`, who is given OWNED_PATHs, and a path that `nobody` cannot reach is named.
- The program receives SIGINT (PostgreSQL's fast shutdown) when the thread that spawned it ends,
  however it ends.
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NAMESPACE_ID = 1000
NOBODY_ID = 65534


def main(arguments: list[str]) -> None:
    split = arguments.index("--")
    parent, owned, command = int(arguments[0]), arguments[1:split], arguments[split + 1 :]
    if sys.platform == "linux":
        if os.geteuid() == 0:
            leave_root(owned)
        require_reach(command[0], owned)
        die_with(parent)
    os.execv(command[0], command)  # noqa: S606 - becoming another program is what this is for


def leave_root(owned: list[str]) -> None:
    """Gives up uid 0, and gives `owned` to the user that follows."""
    if namespaces_work():
        hand_over(owned, 0, 0)
        enter_namespace()
        return
    uid, gid = nobody()
    hand_over(owned, uid, gid)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def namespaces_work() -> bool:
    """Tries in a child: a namespace that opens but cannot be mapped could not be left again."""
    child = os.fork()
    if child == 0:
        try:
            enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def enter_namespace() -> None:
    """Becomes NAMESPACE_ID in a new user namespace, still root outside of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NAMESPACE_ID} 0 1"),
        ("gid_map", f"{NAMESPACE_ID} 0 1"),
    ):
        Path("/proc/self", name).write_text(text)


def nobody() -> tuple[int, int]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY_ID, NOBODY_ID
    return entry.pw_uid, entry.pw_gid


def hand_over(paths: list[str], uid: int, gid: int) -> None:
    """Makes `uid` the owner of each tree; a tree whose top is right is taken to be right below."""
    for path in paths:
        if Path(path).stat().st_uid == uid:
            continue
        for folder, _, files in os.walk(path, topdown=False):
            for name in files:
                os.lchown(Path(folder, name), uid, gid)
            os.lchown(folder, uid, gid)


def require_reach(program: str, owned: list[str]) -> None:
    """Ends with a sentence that names the path which the user we have become cannot use."""
    if not os.access(program, os.X_OK):
        sys.exit(f"PostgreSQL cannot be run as user {os.geteuid()}: {program} is out of its reach")
    for path in owned:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            sys.exit(f"PostgreSQL cannot be run as user {os.geteuid()}: {path} is out of its reach")


def die_with(parent: int) -> None:
    # After the change of user, which would clear it; a parent that ended before it is caught below.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started PostgreSQL has ended")


if __name__ == "__main__":
    main(sys.argv[1:])
