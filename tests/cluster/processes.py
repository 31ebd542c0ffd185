"""Programs that a test starts: each with a log file, each ended by its own id, none outliving the test.

The kernel kills them when the test dies without ending them.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Process:
    """A running program. `log` has what it printed."""

    def __init__(self, name: str, command: tuple[str, ...], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        with log.open("ab") as out:
            # In a session of its own: Ctrl-C at the terminal reaches the test alone, which then ends things in order.
            self._running = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", *command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, "NO_PROXY": "*", "no_proxy": "*"},
            )

    @property
    def pid(self) -> int:
        return self._running.pid

    def running(self) -> bool:
        return self._running.poll() is None

    def stop(self, timeout_s: float = 10.0) -> bool:
        """True when it ended by itself after SIGTERM, False when it had to be killed."""
        if self.running():
            self._running.terminate()
        try:
            self._running.wait(timeout_s)
            return True
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def kill(self) -> None:
        """As a machine that goes away would."""
        if self.running():
            self._running.send_signal(signal.SIGKILL)
        self._running.wait()

    def resident_mib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(
    what: str,
    happened: Callable[[], bool],
    *,
    process: Process | None = None,
    timeout_s: float = 60.0,
    every_s: float = 0.1,
) -> float:
    """Seconds that it took. Raises TimeoutError, and RuntimeError when the process ended first."""
    started = time.monotonic()
    while not happened():
        if process is not None and not process.running():
            raise RuntimeError(f"{process.name} ended before {what}:\n{process.tail()}")
        if time.monotonic() - started > timeout_s:
            log = f":\n{process.tail()}" if process else ""
            raise TimeoutError(f"{what} did not happen within {timeout_s:.0f} s{log}")
        time.sleep(every_s)
    return time.monotonic() - started
