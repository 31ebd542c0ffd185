"""One measurement: a load on a target, with what the target's processes used for it; and the sum of several.

CPU is read when the work that a request leaves behind (settling, batched records, logging) has had time to end,
so that a system cannot look cheap by doing its work late.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from benchmarks.load import LoadResult
from benchmarks.processes import memory_bytes
from benchmarks.servers import PYTHON, ROOT, Command, Role, Target

SETTLE_S = 1.0


@dataclass(frozen=True)
class Mode:
    """How the load is put: the connections that are kept busy, and whether answers are streamed."""

    connections: int
    stream: bool

    @property
    def label(self) -> str:
        return "streamed" if self.stream else "plain"


@dataclass(frozen=True)
class Measurement:
    """One run of a load, or several put together."""

    responses: int
    elapsed_s: float
    latency_us: Sequence[int]
    first_us: Sequence[int]
    cpu_s: dict[Role, float]

    def cpu_ms(self, *roles: Role) -> float:
        """CPU milliseconds per request of the processes with these roles."""
        return 1000 * sum(self.cpu_s.get(role, 0.0) for role in roles) / self.responses


class LoadError(Exception):
    """A load whose responses cannot be compared: one was wrong, missing, or unlike the others."""


def percentile_ms(values_us: Sequence[int], fraction: float) -> float:
    """The nearest-rank percentile, from microseconds to milliseconds."""
    ordered = sorted(values_us)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] / 1000


def measure(target: Target, mode: Mode, seconds: float) -> Measurement:
    """Loads the target for `seconds`. Raises LoadError when any response was not right."""
    before = _cpu_s(target)
    result = _load(target, mode, seconds)
    time.sleep(SETTLE_S)
    after = _cpu_s(target)
    used = {role: after[role] - before[role] for role in after}
    return Measurement(result.responses, result.elapsed_s, result.latency_us, result.first_us, used)


def together(runs: Sequence[Measurement]) -> Measurement:
    """The sum of the runs; latencies are pooled."""
    return Measurement(
        responses=sum(run.responses for run in runs),
        elapsed_s=sum(run.elapsed_s for run in runs),
        latency_us=[value for run in runs for value in run.latency_us],
        first_us=[value for run in runs for value in run.first_us],
        cpu_s={role: sum(run.cpu_s[role] for run in runs) for role in runs[0].cpu_s},
    )


def memory_mb(target: Target) -> dict[Role, float]:
    """Memory now, by role, in megabytes of 10^6 bytes (proportional set size)."""
    return {role: memory_bytes(p.pid for p in group) / 1e6 for role, group in target.roles().items()}


def _cpu_s(target: Target) -> dict[Role, float]:
    return {role: sum(process.cpu_s for process in group) for role, group in target.roles().items()}


def _load(target: Target, mode: Mode, seconds: float) -> LoadResult:
    command: Command = [PYTHON, "-m", "benchmarks.load", "--port", str(target.port), "--key", target.key]
    model = target.streamed_model if mode.stream else target.model
    command += ["--model", model, "--connections", str(mode.connections), "--seconds", str(seconds)]
    command += ["--stream"] if mode.stream else []
    # A session of its own, so that Ctrl-C ends the benchmark and not the load under it; the load is bounded.
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False, start_new_session=True)
    where = f"{target.name}, {mode.label}, {mode.connections} connections"
    if not done.stdout:
        raise LoadError(f"{where}: the load generator failed with exit status {done.returncode}")
    result = msgspec.json.decode(done.stdout, type=LoadResult)
    if result.failure:
        raise LoadError(f"{where}: {result.failure}")
    if len(result.texts) != 1:
        raise LoadError(f"{where}: {len(result.texts)} different answers to one prompt")
    return result
