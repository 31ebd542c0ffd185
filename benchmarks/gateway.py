"""`make bench-gateway`: Modelplane, LiteLLM's proxy and plain Envoy side by side, in one run.

Systems take turns within every round, so that a slow minute of the machine slows all of them. It ends with the
bars that Modelplane is held to; the exit status is 1 when one is short, 2 when nothing could be compared.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bars import Bar
from benchmarks.envoy import envoy
from benchmarks.litellm import litellm
from benchmarks.measure import LoadError, Measurement, Mode, measure, memory_mb, together
from benchmarks.modelplane import modelplane
from benchmarks.report import Results, page
from benchmarks.servers import ROOT, StartError, Target, fake_openai

PAGE = ROOT / "benchmarks" / "results" / "gateway.md"
MODES = (Mode(1, False), Mode(32, False), Mode(1, True), Mode(32, True))
WARM_UP_S = 2.0
# Of LiteLLM's CPU per request: a twentieth on plain requests, a tenth on streams.
LARGEST_SHARE: Final = {False: 1 / 20, True: 1 / 10}


@contextmanager
def targets(names: Sequence[str]) -> Iterator[list[Target]]:
    """The systems of these names, started one after the other, in a fixed order with `direct` first."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-gateway-")))
        direct = stack.enter_context(fake_openai(work))
        starts: dict[str, Callable[[], AbstractContextManager[Target]]] = {
            "envoy": lambda: envoy(work, direct),
            "modelplane": lambda: modelplane(work),
            "litellm": lambda: litellm(work, direct),
        }
        started = [direct]
        try:
            for name, start in starts.items():
                if name in names:
                    print(f"starting {name}", file=sys.stderr)
                    started.append(stack.enter_context(start()))
            yield started
        finally:
            # Stopping is bounded, and a second Ctrl-C must not leave half of it undone.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(systems: Sequence[Target], rounds: int, seconds: float) -> Results:
    """All measurements. Raises LoadError at the first response that is not right."""
    for system in systems:
        print(f"warming up {system.name}", file=sys.stderr)
        for stream in (False, True):
            measure(system, Mode(8, stream), WARM_UP_S)
    results: dict[Mode, dict[str, list[Measurement]]] = {
        mode: {system.name: [] for system in systems} for mode in MODES
    }
    for number in range(rounds):
        for mode in MODES:
            for system in systems:
                done = measure(system, mode, seconds)
                results[mode][system.name].append(done)
                rate = done.responses / done.elapsed_s
                line = f"round {number + 1}: {mode.label} x{mode.connections} {system.name}: {rate:.0f} requests/s"
                print(f"{line}, {done.cpu_ms('gateway', 'database'):.3f} ms CPU", file=sys.stderr)
    return results


def bars(results: Results) -> list[Bar]:
    """Modelplane's CPU per request, its database's included, as a share of LiteLLM's."""
    made = []
    for mode, systems in results.items():
        ours = together(systems["modelplane"]).cpu_ms("gateway", "database")
        theirs = together(systems["litellm"]).cpu_ms("gateway")
        name = f"gateway_cpu_share_of_litellm_{mode.label}_{mode.connections}"
        made.append(Bar(name, ours / theirs, "<=", LARGEST_SHARE[mode.stream]))
    return made


def bench(names: Sequence[str], rounds: int, seconds: float) -> int:
    started_s = time.monotonic()
    with targets(names) as systems:
        results = run(systems, rounds, seconds)
        memory = {system.name: memory_mb(system) for system in systems}
    text = page(results, memory, seconds, time.monotonic() - started_s)
    print(text)
    if not {"modelplane", "litellm"} <= set(names):
        return 0
    held = bars(results)
    for bar in held:
        print(bar)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text + "\n## Bars\n\n" + "".join(f"    {bar}\n" for bar in held))
    return 1 if any(bar.short for bar in held) else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Modelplane and its peers side by side")
    systems = ["envoy", "modelplane", "litellm"]
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems, help="default: all, with bars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each measurement")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = bench(given.systems, given.rounds, given.seconds)
    except (StartError, LoadError) as error:
        print(f"nothing was compared: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; everything was stopped", file=sys.stderr)
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
