"""Says whether the engine can hold an answer to a constraint, before the engine is asked to.

Kept true: nothing that a client sends is parsed or compiled on the replica's own loop, or without a bound of size,
time and memory; the same constraint is tried once, however many ask for it at once, and its verdict is remembered.
"""

import asyncio
import hashlib
import itertools
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest
from services import telemetry
from services.chat_inference.settings import Settings
from services.faults import DeadlineExceeded, InvalidRequest

log = telemetry.logger(__name__)

# Verdicts to remember: so many, and so many characters of them.
_MOST_VERDICTS = 1000
_MOST_CHARACTERS = 16 * 1024 * 1024

_PARAMS: Mapping[str, str] = {"structural_tag": "tools", "text": "reasoning_effort"}


class Grammars:
    """The process that tries grammars, see `grammar_process`, started with `start` and again should it die."""

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        self._checkpoint = checkpoint
        self._settings = settings
        self._verdicts = OrderedDict[bytes, dict[str, str]]()
        self._characters = 0
        self._trying: dict[bytes, asyncio.Task[dict[str, str]]] = {}
        self._asked: dict[str, asyncio.Future[dict[str, str]]] = {}
        self._names = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the process in the background; a request that comes before it is ready waits for it."""
        self._reader = asyncio.create_task(self._run())

    async def up(self) -> None:
        """Returns when the process is ready, or after as long as a request would wait for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grammar_timeout_ms / 1000):
                await self._ready.wait()

    async def tag(self, request: GenerateRequest) -> str | None:
        """The structural tag that the request's answer is to be held to, or None for any answer.

        Raises InvalidRequest (invalid_schema) for one that the engine cannot hold to, and DeadlineExceeded
        (grammar_not_ready) when the verdict did not come in time.
        """
        constraint, thinking = request.sampling.constraint, request.thinking
        kind = constraint.WhichOneof("kind")
        if kind is None and not thinking.budget_tokens:
            return None
        text = getattr(constraint, kind) if kind in ("json_schema", "structural_tag") else ""
        kind = kind or "text"
        param = _PARAMS.get(kind, "response_format")
        if len(text) > self._settings.grammar_bytes:
            raise InvalidRequest(
                "invalid_schema",
                f"The schemas have {len(text)} characters; at most {self._settings.grammar_bytes} are admitted.",
                param=param,
            )
        thoughts = (
            [thinking.begin, thinking.end, thinking.open, thinking.budget_tokens]
            if request.HasField("thinking")
            else None
        )
        verdict = await self._verdict(json.dumps({"kind": kind, "text": text, "thoughts": thoughts}))
        if "tag" not in verdict:
            raise InvalidRequest("invalid_schema", verdict["problem"], param=param)
        return verdict["tag"]

    async def close(self) -> None:
        if self._reader:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _verdict(self, asked: str) -> dict[str, str]:
        key = hashlib.sha256(asked.encode()).digest()
        if known := self._verdicts.get(key):
            self._verdicts.move_to_end(key)
            return known
        task = self._trying.get(key)
        if task is None:
            task = self._trying[key] = asyncio.create_task(self._try(asked))
            task.add_done_callback(lambda task: self._remember(key, task))
        # One that gives up must not end it for the others.
        return await asyncio.shield(task)

    async def _try(self, asked: str) -> dict[str, str]:
        name = str(next(self._names))
        answer = self._asked[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._settings.grammar_timeout_ms / 1000):
                await self._ready.wait()
                assert self._process and self._process.stdin
                self._process.stdin.write(f'{{"id":"{name}",{asked[1:]}\n'.encode())
                verdict: dict[str, str] = await answer
                return verdict
        except (TimeoutError, ConnectionError) as error:
            raise DeadlineExceeded(
                "grammar_not_ready", "The schema's grammar was not ready in time; try again.", retry_after_ms=1000
            ) from error
        finally:
            del self._asked[name]

    def _remember(self, key: bytes, task: "asyncio.Task[dict[str, str]]") -> None:
        del self._trying[key]
        if task.cancelled() or task.exception():
            return
        verdict = self._verdicts[key] = task.result()
        self._characters += _size(verdict)
        while len(self._verdicts) > _MOST_VERDICTS or self._characters > _MOST_CHARACTERS:
            _, oldest = self._verdicts.popitem(last=False)
            self._characters -= _size(oldest)

    async def _run(self) -> None:
        while True:
            await self._serve()
            log.warning("the grammar process ended; it is started again")
            await asyncio.sleep(1)

    async def _serve(self) -> None:
        """From the process's start to its end."""
        settings = self._settings
        arguments = [str(self._checkpoint), str(settings.grammar_cpu_s), str(settings.grammar_memory_bytes)]
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.chat_inference.engines.grammar_process", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=16 * settings.grammar_bytes,
            # A Ctrl-C in the terminal is for the platform.
            start_new_session=True,
        )
        assert process.stdout
        try:
            async for line in process.stdout:
                self._hear(json.loads(line))
        finally:
            self._ready.clear()
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the grammar process ended"))
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _hear(self, said: dict[str, Any]) -> None:
        if not said:
            self._ready.set()
        elif (answer := self._asked.get(said.pop("id"))) and not answer.done():
            # One that has just come too late is done, though nobody has taken it out yet.
            answer.set_result(said)


def _size(verdict: Mapping[str, str]) -> int:
    return sum(map(len, verdict.values()))
