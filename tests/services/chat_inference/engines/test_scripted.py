"""The scripted engine keeps to its script."""

import asyncio
import time

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
)
from services.catalog import ScriptSpec
from services.chat_inference.engines.engine import Piece
from services.chat_inference.engines.scripted import ScriptedEngine
from tests.services.chat_inference.peer import asked


async def spoken(engine: ScriptedEngine, request_id: str, most: int = 1000) -> list[Piece]:
    return [piece async for piece in engine.generate(asked(request_id, most=most))]


async def test_it_says_the_same_every_time() -> None:
    engine = ScriptedEngine(ScriptSpec(tokens=40))
    first, second = await asyncio.gather(spoken(engine, "a"), spoken(engine, "b"))
    assert first == second
    assert "".join(piece.text for piece in first) == "".join(f" tok{i}" for i in range(1, 41))
    assert [piece.finish_reason for piece in first if piece.finish_reason] == [FINISH_REASON_STOP]
    assert (await spoken(engine, "c", most=40))[-1].finish_reason == FINISH_REASON_STOP
    assert (await spoken(engine, "c", most=39))[-1].finish_reason == FINISH_REASON_LENGTH


async def test_it_keeps_its_times() -> None:
    engine = ScriptedEngine(ScriptSpec(tokens=5, first_token_ms=60, token_ms=10))
    began = time.monotonic()
    await asyncio.gather(*(spoken(engine, str(i)) for i in range(20)))
    assert 0.1 <= time.monotonic() - began < 1


async def test_an_abort_wakes_it() -> None:
    engine = ScriptedEngine(ScriptSpec(tokens=5, first_token_ms=60_000))
    waiting = asyncio.create_task(spoken(engine, "a"))
    await asyncio.sleep(0.01)
    await engine.abort("a")
    await engine.abort("unknown")
    async with asyncio.timeout(30):
        assert await waiting == []


async def test_without_delays_others_get_their_turn() -> None:
    engine = ScriptedEngine(ScriptSpec(tokens=10_000_000))
    busy = asyncio.create_task(spoken(engine, "a", most=10_000_000))
    await asyncio.sleep(0)
    await engine.abort("a")
    async with asyncio.timeout(30):
        assert len(await busy) < 100


async def test_it_says_a_text_to_its_end() -> None:
    engine = ScriptedEngine(ScriptSpec(text="<think>hm</think>Grüße 🐉!", tokens=3))
    whole = await spoken(engine, "a")
    assert [piece.text for piece in whole] == ["<thi", "nk>h", "m</t", "hink", ">Grü", "ße 🐉", "!"]
    assert whole[-1].finish_reason == FINISH_REASON_STOP
    cut = await spoken(engine, "b", most=2)
    assert ("".join(piece.text for piece in cut), cut[-1].finish_reason) == ("<think>h", FINISH_REASON_LENGTH)


async def test_it_makes_up_log_probabilities() -> None:
    engine = ScriptedEngine(ScriptSpec(text="🐉 says hello"))
    request = asked("a")
    assert not any([piece.logprobs async for piece in engine.generate(request)])
    request.sampling.top_logprobs = 2
    first, second = [[piece.logprobs async for piece in engine.generate(request)] for _ in range(2)]
    assert first == second
    (place,) = first[0]
    assert (place.token, place.raw, [top.token for top in place.top]) == ("🐉 sa", "🐉 sa".encode(), ["🐉 sa", " alt1"])
    assert 0 > place.logprob == place.top[0].logprob > place.top[1].logprob
    request.sampling.top_logprobs = 0
    assert [len(piece.logprobs[0].top) async for piece in engine.generate(request)] == [0, 0, 0]


async def test_it_may_be_asked_for_the_prompt_alone() -> None:
    request = asked("a", n=2, most=0)
    request.sampling.echo = True
    request.sampling.top_logprobs = 1
    del request.prompt_token_ids[:]
    request.prompt_token_ids.extend([*"café".encode(), 257])
    pieces = [piece async for piece in ScriptedEngine(ScriptSpec()).generate(request)]
    assert [(piece.choice, piece.text, piece.tokens, piece.finish_reason) for piece in pieces] == [
        (0, "café", 0, FINISH_REASON_UNSPECIFIED),
        (1, "café", 0, FINISH_REASON_UNSPECIFIED),
        (0, "", 0, FINISH_REASON_LENGTH),
        (1, "", 0, FINISH_REASON_LENGTH),
    ]
    assert [place.token for place in pieces[0].logprobs] == ["café"]
