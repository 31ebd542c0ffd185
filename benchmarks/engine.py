"""`make bench-engine`: the platform around a real engine beside that engine alone, in one run.

Both serve the default model with the same settings on this machine, both are up the whole time, and they take
turns. Bars: at 8 streams the platform delivers at least 95 % of the bare engine's tokens per second; at one stream
it adds at most 5 ms to the time to the first token. The exit status is 1 when one is short.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from benchmarks.bare_engine import Ask, Told
from benchmarks.bars import Bar
from benchmarks.servers import PYTHON, ROOT, free_port, serve
from services.catalog import DEFAULT_MODEL, checkpoint_directory
from services.settings import Environment, PlatformSettings

STREAMS = 8
TOKENS = 96
# The tokens that end an answer: banned, so that both sides say equally much.
ENDS: Final = (0, 2)
FIRST_TOKEN_RUNS = 12
# The threads of a model go on spinning for a while when it has nothing to do, at the expense of the other side.
REST_S = 1.0


class Side(Protocol):
    """One of the two that are compared."""

    def run(self, streams: int, tokens: int) -> Told:
        """So many conversations at once."""
        ...


def prompts(count: int) -> list[str]:
    """Conversations that nobody has had before, so that none comes out of a cache."""
    return [f"Number {time.time_ns()}-{index}: tell a long story about the sea." for index in range(count)]


class Bare:
    """The engine's process, asked over its standard input."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, streams: int, tokens: int) -> Told:
        assert self._process.stdin and self._process.stdout
        ask = Ask(prompts(streams), tokens, list(ENDS))
        self._process.stdin.write(msgspec.json.encode(ask).decode() + "\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Told)


@contextmanager
def bare(checkpoint: Path) -> Iterator[Bare]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCHDYNAMO_DISABLE": "1",
    }
    process = subprocess.Popen(
        [PYTHON, "-m", "benchmarks.bare_engine", checkpoint],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if line.strip() == "ready":
                break
        else:
            raise SystemExit("the bare engine did not start")
        yield Bare(process)
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(60)


class Platform:
    """Modelplane, asked over HTTP with as little client as can be."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key

    def run(self, streams: int, tokens: int) -> Told:
        return asyncio.run(self._run(streams, tokens))

    async def _run(self, streams: int, tokens: int) -> Told:
        began = time.perf_counter()
        done = await asyncio.gather(*(self._stream(prompt, tokens) for prompt in prompts(streams)))
        return Told(time.perf_counter() - began, [first for first, _ in done], sum(count for _, count in done))

    async def _stream(self, prompt: str, tokens: int) -> tuple[float, int]:
        """Time to the first piece of text, and the tokens of the usage that ends the stream."""
        body = json.dumps(
            {
                "model": DEFAULT_MODEL.name,
                "messages": [{"role": "user", "content": prompt}],
                "max_completion_tokens": tokens,
                "logit_bias": dict.fromkeys(map(str, ENDS), -100),
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (self._key.encode(), len(body), body)
        )
        first_s, usage = 0.0, b""
        while line := await reader.readline():
            if not first_s and b'"content":"' in line and b'"content":""' not in line:
                first_s = time.perf_counter() - began
            if b'"choices":[]' in line:
                usage = line
        writer.close()
        if not first_s or not usage:
            raise SystemExit("the platform ended a stream early; see its log")
        counted: int = json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"]
        return first_s, counted


@contextmanager
def platform(work: Path) -> Iterator[Platform]:
    port, home = free_port(), work / "home"
    with serve(
        [PYTHON.parent / "modelplane", "up"],
        environment={"MODELPLANE_HOME": str(home), "MODELPLANE_PORT": str(port)},
        log=work / "modelplane.log",
        ready_url=f"http://127.0.0.1:{port}/readyz",
        timeout_s=300,
    ):
        credentials = json.loads((home / "credentials.json").read_text())
        yield Platform(port, credentials["api_key"])


def compare(sides: dict[str, Side], rounds: int) -> dict[str, tuple[float, float]]:
    """By side: tokens per second at STREAMS streams, and seconds to the first token at one; medians of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    firsts: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            time.sleep(REST_S)
            told = side.run(STREAMS, TOKENS)
            if told.tokens != STREAMS * TOKENS:
                raise SystemExit(f"{name} said {told.tokens} tokens, not {STREAMS * TOKENS}")
            rates[name].append(told.tokens / told.elapsed_s)
        print(f"round {number + 1}: " + ", ".join(f"{n} {r[-1]:.1f} tokens/s" for n, r in rates.items()), flush=True)
    for _ in range(FIRST_TOKEN_RUNS):
        for name, side in sides.items():
            time.sleep(REST_S)
            firsts[name] += side.run(1, 4).first_s
    return {name: (statistics.median(rates[name]), statistics.median(firsts[name])) for name in sides}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    rounds = parser.parse_args().rounds
    settings = Environment.capture().group(PlatformSettings)
    checkpoint = checkpoint_directory(DEFAULT_MODEL, settings.cache_directory())
    with (
        tempfile.TemporaryDirectory(prefix="bench-engine-") as work,
        # First, because it prepares the checkpoint that both read.
        platform(Path(work)) as ours,
        bare(checkpoint) as theirs,
    ):
        sides: dict[str, Side] = {"bare": theirs, "modelplane": ours}
        for side in sides.values():
            side.run(STREAMS, 16)
        found = compare(sides, rounds)
    for name, (rate, first_s) in found.items():
        print(f"{name}: {rate:.1f} tokens/s at {STREAMS} streams, first token after {first_s * 1000:.1f} ms at one")
    bars = (
        Bar("engine_tokens_share_of_bare", found["modelplane"][0] / found["bare"][0], ">=", 0.95),
        Bar("engine_first_token_added_ms", (found["modelplane"][1] - found["bare"][1]) * 1000, "<=", 5),
    )
    for bar in bars:
        print(bar)
    sys.exit(1 if any(bar.short for bar in bars) else 0)


if __name__ == "__main__":
    main()
