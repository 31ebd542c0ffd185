"""Grammars are tried in a process that can be stopped: what is too much is refused, and nobody else waits for it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
import pytest_asyncio

from modelplane.chat_inference.v1.chat_inference_pb2 import Constraint, GenerateRequest, Sampling, Thinking
from services.chat_inference.engines import checkpoints
from services.chat_inference.engines.grammars import Grammars
from services.chat_inference.settings import Settings
from services.faults import DeadlineExceeded, InvalidRequest
from services.settings import Environment, PlatformSettings

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

# The process loads an engine's libraries first: on a busy machine that alone may take the default's 20 s.
PATIENT_MS = 120_000
# Its grammar takes a quarter of a minute.
SLOW = {"type": "object", "properties": {f"name{i}": {"type": "string"} for i in range(1000)}}


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Grammars]:
    cache = Environment.capture().group(PlatformSettings).cache_directory()
    grammars = Grammars(checkpoints.prepare(cache, print), settings)
    grammars.start()
    try:
        yield grammars
    finally:
        await grammars.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grammars() -> AsyncIterator[Grammars]:
    settings = Settings(
        grammar_cpu_s=2, grammar_memory_bytes=256 * 1024 * 1024, grammar_bytes=100_000, grammar_timeout_ms=PATIENT_MS
    )
    async with started(settings) as grammars:
        yield grammars
    assert not processes()


def processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "grammar_process" in command(child)]


def command(process: psutil.Process) -> str:
    """Its command line; "" when it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def held(schema: object) -> GenerateRequest:
    return GenerateRequest(sampling=Sampling(constraint=Constraint(json_schema=json.dumps(schema))))


async def refused(grammars: Grammars, schema: object) -> str:
    with pytest.raises(InvalidRequest) as raised:
        await grammars.tag(held(schema))
    assert (raised.value.reason, raised.value.param) == ("invalid_schema", "response_format")
    return raised.value.message


async def test_what_can_be_held_to_comes_back_as_a_tag(grammars: Grammars) -> None:
    tag = await grammars.tag(held({"type": "integer"}))
    assert tag and json.loads(tag)["format"]["json_schema"] == {"type": "integer"}
    assert await grammars.tag(GenerateRequest()) is None
    thinking = Thinking(begin="<think>", end="</think>")
    assert await grammars.tag(GenerateRequest(thinking=thinking)) is None
    thinking.budget_tokens = 5
    tag = await grammars.tag(GenerateRequest(thinking=thinking))
    assert tag and '"max_tokens": 5' in tag


async def test_what_cannot_be_is_refused_with_the_reason(grammars: Grammars) -> None:
    assert "Unsupported type" in await refused(grammars, {"type": "strange"})
    assert "'not' at #" in await refused(grammars, {"not": {}})
    assert "100000" in await refused(grammars, {"enum": ["x" * 100_000]})


async def test_a_slow_one_is_stopped_and_nobody_waits_for_it(grammars: Grammars) -> None:
    await grammars.tag(held({"type": "string"}))
    slow = asyncio.create_task(refused(grammars, SLOW))
    same = asyncio.create_task(refused(grammars, SLOW))
    await asyncio.sleep(0)
    began = time.monotonic()
    await grammars.tag(held({"type": "number"}))
    quick = time.monotonic() - began
    assert not slow.done()
    given_up = asyncio.create_task(grammars.tag(held(SLOW)))
    await asyncio.sleep(0)
    given_up.cancel()
    assert "more than 2 s" in await slow and await same == await slow
    print(f"a quick one took {quick:.2f} s")
    began = time.monotonic()
    assert "more than 2 s" in await refused(grammars, SLOW)
    # It is not tried again.
    assert time.monotonic() - began < 1


async def test_a_process_that_ended_is_replaced(grammars: Grammars) -> None:
    (process,) = processes()
    trying = asyncio.create_task(grammars.tag(held({"const": 1})))
    await asyncio.sleep(0)
    process.kill()
    with pytest.raises(DeadlineExceeded):
        await trying
    assert await grammars.tag(held({"const": 1}))


async def test_a_verdict_that_comes_too_late(grammars: Grammars) -> None:
    async with started(Settings(grammar_timeout_ms=1)) as hurried:
        with pytest.raises(DeadlineExceeded, match="in time"):
            await hurried.tag(held({"const": 2}))


async def test_a_large_one_is_refused() -> None:
    async with started(Settings(grammar_memory_bytes=1024 * 1024, grammar_timeout_ms=PATIENT_MS)) as grammars:
        large = {"enum": [f"{i}" * 6 for i in range(10_000, 15_000)]}
        assert "too much memory" in await refused(grammars, large)
        assert await grammars.tag(held({"const": 3}))
