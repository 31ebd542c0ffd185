"""Stands in for the Ray driver: every replica is a sleeping child process, ready at once.

Run as a script with the driver's options; a replica whose model is `crash` makes the driver kill itself.
"""

import os
import signal
import subprocess
import sys

import msgspec

from services.pools.messages import Command, Connected, Drain, Ended, Event, Kill, Ready, Start


def tell(event: Event) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
    sys.stdout.flush()


def main() -> None:
    tell(Connected(1))
    for line in sys.stdin.buffer:
        match msgspec.json.decode(line, type=Command):
            case Start(replica_id, variables):
                # As Ray's workers: a process group of its own, and none of the pipes.
                child = subprocess.Popen(["sleep", "600"], process_group=0, stdout=subprocess.DEVNULL)
                tell(Ready(replica_id, child.pid, "127.0.0.1:1"))
                if variables.get("MODELPLANE_CHAT_INFERENCE_MODEL") == "crash":
                    os.kill(os.getpid(), signal.SIGKILL)
            case Drain(replica_id) | Kill(replica_id):
                tell(Ended(replica_id, ""))


if __name__ == "__main__":
    main()
