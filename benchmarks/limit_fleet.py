"""Several gateways, each a process of its own, that hammer one limit in one Valkey."""

import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.limit_gateway import TALLY, Orders, Tally
from benchmarks.servers import PYTHON, ROOT
from services.ratelimit.shared.connection import Connection

SECOND_NS = 1_000_000_000


class Fleet:
    """Gateways that are connected."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], tallies: Sequence[Path]) -> None:
        self.processes = processes
        self._tallies = tallies

    def start(self) -> None:
        """Lets all of them hammer from now on."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def wait(self) -> None:
        """Until those that were not killed have ended well."""
        for process in self.processes:
            assert process.wait(60) in (0, -9)

    def total(self) -> Tally:
        """What all of them have granted so far."""
        return Tally(*(sum(values) for values in zip(*map(Tally.read, self._tallies), strict=True)))


@contextmanager
def fleet(tmp_path: Path, url: str, size: int, **orders: Any) -> Iterator[Fleet]:
    """Gateways with these orders, connected and ready; every other clock is five seconds ahead or behind."""
    processes, tallies = [], []
    try:
        for number in range(size):
            tally = tmp_path / f"tally-{number}"
            tally.write_bytes(bytes(struct.calcsize(TALLY)))
            process = subprocess.Popen(
                [PYTHON, "-m", "benchmarks.limit_gateway"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            processes.append(process)
            tallies.append(tally)
            skew_ns = (-5, 5)[number % 2] * SECOND_NS
            given = Orders(url=url, tally=str(tally), **{"skew_ns": skew_ns, **orders})
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(given).decode() + "\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Fleet(processes, tallies)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


async def server_ns(valkey: Connection) -> int:
    """The server's own time."""
    seconds, micros = await valkey.call("TIME")
    return int(seconds) * SECOND_NS + int(micros) * 1_000


def allowed(rate: tuple[int, int], elapsed_ns: int) -> int:
    """The most that the law lets through from a full bucket."""
    return rate[0] + elapsed_ns // rate[1]
