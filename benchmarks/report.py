"""The page of `benchmarks.gateway`: its tables, how to read them, and what they were measured on."""

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import envoy, litellm, modelplane
from benchmarks.measure import Measurement, Mode, percentile_ms, together
from benchmarks.servers import Role

Results = Mapping[Mode, Mapping[str, Sequence[Measurement]]]
"""The runs of each mode and target, in the order of the rounds."""

HOW_TO_READ = """\
One client keeps 1 or 32 connections busy; systems take turns in every round, and all runs of a system are put
together. Every response is checked: status 200, the same text each time, 50 tokens of usage, and in streams 50
content events and [DONE]. `direct` is the client on the instant fake OpenAI server; Envoy and LiteLLM stand in
front of that server, Modelplane in front of its scripted engine in a replica process. On both sides a plain answer
is there whole at once, and a streamed one comes token by token, each in a turn of its own. `added` is a latency less
the direct one. With 32 connections the machine is saturated, so latency there is throughput seen from the other side.
With 32, each step runs for several requests in a row and one turn of the event loop serves many; with one connection a
request pays for its turns alone, and every step finds the processor's inner caches and branch predictors filled by the
steps before it. So the same work costs a lean program about twice as much, as Envoy's rows show too. A program whose
requests are long pays that price at any load.

- **gateway CPU** is user and system time of the system's own process, from /proc, until 1 s after the load, per
  request; in brackets the lowest and highest round. LiteLLM: its one worker. Modelplane: the platform's process
  (gateway, authentication, limits, tokenizer, router, billing).
- **database CPU** is Modelplane's embedded PostgreSQL. The bars count it as Modelplane's.
- **upstream CPU** is what answers behind it: the fake server, or Modelplane's replica, which also counts tokens and
  makes the usage record. The other processes of Ray see no request and are not counted.
- LiteLLM authenticates by its master key and keeps no database: it looks up no keys and records no spend. Envoy does
  nothing but forward. Modelplane authenticates a project key, reserves and settles request and token limits, and
  bills every request in its ledger.
"""


def page(results: Results, memory_mb: Mapping[str, Mapping[Role, float]], seconds: float, took_s: float) -> str:
    """The Markdown page."""
    return "\n".join(
        [
            "# Gateways side by side",
            "",
            f"Written by `make bench-gateway` on {datetime.now(UTC):%Y-%m-%d}.",
            "",
            *_requests_table(results),
            "",
            *_memory_table(memory_mb),
            "",
            "## How to read it",
            "",
            HOW_TO_READ,
            "## Measured on",
            "",
            *_conditions(results, seconds, took_s),
            "",
        ]
    )


def _requests_table(results: Results) -> list[str]:
    head = ["mode", "connections", "system", "requests/s", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"]
    head += ["first byte p50 ms", "gateway CPU ms/request", "database CPU", "upstream CPU", "requests"]
    lines = [_row(head), _row(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for mode, systems in results.items():
        direct = together(systems["direct"])
        lines += [_row(_cells(mode, name, runs, direct)) for name, runs in systems.items()]
    return lines


def _cells(mode: Mode, name: str, runs: Sequence[Measurement], direct: Measurement) -> list[str]:
    total = together(runs)
    p50, p99 = (percentile_ms(total.latency_us, fraction) for fraction in (0.50, 0.99))
    added = [p50 - percentile_ms(direct.latency_us, 0.50), p99 - percentile_ms(direct.latency_us, 0.99)]
    cpu = "-"
    if "gateway" in total.cpu_s:
        rounds = [run.cpu_ms("gateway") for run in runs]
        cpu = f"{total.cpu_ms('gateway'):.3f} ({min(rounds):.3f}-{max(rounds):.3f})"
    return [
        mode.label,
        str(mode.connections),
        name,
        f"{total.responses / total.elapsed_s:.1f}",
        f"{p50:.2f}",
        f"{p99:.2f}",
        *("-" if name == "direct" else f"{value:.2f}" for value in added),
        f"{percentile_ms(total.first_us, 0.50):.2f}",
        cpu,
        f"{total.cpu_ms('database'):.3f}" if "database" in total.cpu_s else "-",
        f"{total.cpu_ms('upstream'):.3f}",
        str(total.responses),
    ]


def _memory_table(memory_mb: Mapping[str, Mapping[Role, float]]) -> list[str]:
    columns: tuple[Role, ...] = ("gateway", "database", "upstream", "ray")
    lines = [_row(("memory after the runs, MB", *columns)), _row(("---", *["---:"] * len(columns)))]
    for name, groups in memory_mb.items():
        lines.append(_row((name, *(f"{groups[role]:.0f}" if role in groups else "-" for role in columns))))
    return lines


def _conditions(results: Results, seconds: float, took_s: float) -> list[str]:
    rounds = max(len(runs) for systems in results.values() for runs in systems.values())
    return [
        machine(),
        f"- {rounds} rounds of {seconds:g} s for each system and mode, {took_s:.0f} s in all",
        f"- Python {platform.python_version()}, Modelplane {modelplane.version()}, LiteLLM {litellm.version()} "
        f"(1 worker), Envoy {envoy.version()} (concurrency 1)",
    ]


def machine() -> str:
    """What it was measured on."""
    return (
        f"- {_processor()}, {os.cpu_count()} logical CPUs, {_memory_gb():.0f} GB; {platform.system()} "
        f"{platform.release()}; load average at the end {os.getloadavg()[2]:.1f} over 15 minutes"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
