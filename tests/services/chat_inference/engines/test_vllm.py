"""The real model on the real engine: one start for all of these tests, which run in this order."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import jinja2
import psutil
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_ABORT,
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Delta,
    GenerateRequest,
    Sampling,
)
from modelplane.usage.v1.usage_pb2 import OUTCOME_ABORTED, OUTCOME_COMPLETED, OUTCOME_FAILED
from services.catalog import DEFAULT_MODEL
from services.chat_inference.engines import checkpoints
from services.chat_inference.engines.vllm import VllmEngine, lives
from services.chat_inference.service import ChatInference
from services.chat_inference.settings import Settings
from services.settings import Environment, PlatformSettings
from tests.services.chat_inference.peer import Ledger, Peer, generated, text

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    # vLLM's own and its libraries'.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    cache = Environment.capture().group(PlatformSettings).cache_directory()
    return checkpoints.prepare(cache, print)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(checkpoint: Path) -> AsyncIterator[ChatInference]:
    engine = VllmEngine(DEFAULT_MODEL, checkpoint)
    phases: list[str] = []
    began = time.monotonic()
    await engine.start(phases.append)
    print(f"started in {time.monotonic() - began:.1f} s")
    assert phases == ["loading vLLM", "loading weights", "warming up"]
    children = psutil.Process().children(recursive=True)
    service = ChatInference(engine, DEFAULT_MODEL, Ledger(), Settings(usage_grace_ms=0))
    yield service
    await service.close()
    await engine.close()
    left = [child for child in children if lives(child) and "VLLM" in child.name()]
    assert not left


@pytest_asyncio.fixture(loop_scope="module")
async def peer(service: ChatInference) -> AsyncIterator[Peer]:
    async with Peer(service) as peer:
        yield peer


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))


def rendered(checkpoint: Path, question: str) -> str:
    template = jinja2.Template((checkpoint / "chat_template.jinja").read_text())
    return str(template.render(messages=[{"role": "user", "content": question}], add_generation_prompt=True))


class Chat:
    """Asks the model, a new request id each time."""

    def __init__(self, peer: Peer, tokenizer: Tokenizer, checkpoint: Path) -> None:
        self._peer = peer
        self._tokenizer = tokenizer
        self._checkpoint = checkpoint
        self._asked = 0

    def request(self, question: str, sampling: Sampling) -> GenerateRequest:
        self._asked += 1
        ids = self._tokenizer.encode(rendered(self._checkpoint, question), add_special_tokens=False).ids
        name = f"{id(self)}-{self._asked}"
        return GenerateRequest(request_id=name, model=DEFAULT_MODEL.name, prompt_token_ids=ids, sampling=sampling)

    async def ask(self, question: str, sampling: Sampling) -> list[Delta]:
        return await self._peer.run(self.request(question, sampling))


@pytest.fixture
def chat(peer: Peer, tokenizer: Tokenizer, checkpoint: Path) -> Chat:
    return Chat(peer, tokenizer, checkpoint)


FRANCE = "What is the capital of France?"
STORY = "Tell me a very long story about a dragon, in as much detail as you can."


def once(most: int, **sampling: object) -> Sampling:
    return Sampling(n=1, max_output_tokens=most, **sampling)  # type: ignore[arg-type]


def reasons(deltas: list[Delta]) -> list[int]:
    return [delta.finish_reason for delta in deltas if delta.finish_reason]


async def test_the_prompt_is_what_transformers_would_make(checkpoint: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(checkpoint)
    messages = [{"role": "user", "content": "Où est 北京?  \n"}]
    prompt = rendered(checkpoint, messages[0]["content"])
    assert prompt == theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert tokenizer.encode(prompt, add_special_tokens=False).ids == theirs(prompt)["input_ids"]


async def test_it_answers_and_stops_at_the_end_of_its_turn(chat: Chat) -> None:
    deltas = await chat.ask(FRANCE, once(50, temperature=0))
    assert text(deltas) == "The capital of France is Paris."
    assert reasons(deltas) == [FINISH_REASON_STOP]
    usage = deltas[-1].usage
    assert (usage.outcome, usage.input_tokens) == (OUTCOME_COMPLETED, 37)
    assert usage.output_tokens == generated(deltas) == 8


async def test_a_seed_gives_the_same_again(chat: Chat) -> None:
    sampled = [text(await chat.ask(STORY, once(20, seed=seed))) for seed in (-1, -1, 7)]
    assert sampled[0] == sampled[1] != sampled[2]


async def test_two_choices(chat: Chat) -> None:
    deltas = await chat.ask(STORY, Sampling(n=2, seed=3, max_output_tokens=12))
    assert text(deltas, 0) and text(deltas, 1) and text(deltas, 0) != text(deltas, 1)
    assert reasons(deltas) == [FINISH_REASON_LENGTH] * 2
    assert deltas[-1].usage.output_tokens == generated(deltas) == 24


async def test_a_stop_string_ends_it_and_is_not_shown(chat: Chat) -> None:
    deltas = await chat.ask(FRANCE, once(50, temperature=0, stop=["x y z", " is Par"]))
    assert text(deltas) == "The capital of France"
    assert reasons(deltas) == [FINISH_REASON_STOP]
    assert deltas[-1].usage.output_tokens == generated(deltas)


async def test_the_bound_on_tokens(chat: Chat) -> None:
    deltas = await chat.ask(FRANCE, once(3, temperature=0, top_p=0))
    assert (text(deltas), reasons(deltas)) == ("The capital of", [FINISH_REASON_LENGTH])


async def test_cached_prompt_tokens_are_counted(chat: Chat) -> None:
    question = "Repeat after me: " + "one two three four five " * 60
    first = (await chat.ask(question, once(2)))[-1].usage
    second = (await chat.ask(question, once(2)))[-1].usage
    assert first.input_tokens == second.input_tokens > 300
    assert second.cached_input_tokens > 200 > first.cached_input_tokens


async def test_an_abort_frees_the_engine_within_a_second(chat: Chat, peer: Peer, service: ChatInference) -> None:
    request = chat.request(STORY, Sampling(n=2, max_output_tokens=1900))
    peer.start(request)
    await peer.begun(request.request_id)
    began = time.monotonic()
    peer.abort(request.request_id)
    deltas = await peer.ended(request.request_id)
    assert time.monotonic() - began < 1
    assert reasons(deltas) == [FINISH_REASON_ABORT]
    usage = deltas[-1].usage
    assert (usage.outcome, usage.output_tokens) == (OUTCOME_ABORTED, generated(deltas))
    assert not service.load().request_ids


async def test_what_can_never_run_is_refused(chat: Chat, peer: Peer) -> None:
    long = chat.request("word " * DEFAULT_MODEL.context_tokens, once(5))
    strange = chat.request(FRANCE, once(5))
    strange.prompt_token_ids.append(10_000_000)
    for request, reason in ((long, "context_length_exceeded"), (strange, "invalid_value")):
        last = (await peer.run(request))[-1]
        assert (last.fault.reason, last.usage.outcome) == (reason, OUTCOME_FAILED)
        assert last.usage.output_tokens == last.usage.input_tokens == 0


async def test_eight_at_once(chat: Chat) -> None:
    began = time.monotonic()
    ends = await asyncio.gather(*(chat.ask(STORY, once(40, seed=seed)) for seed in range(8)))
    tokens = sum(deltas[-1].usage.output_tokens for deltas in ends)
    print(f"{tokens / (time.monotonic() - began):.0f} tokens/s at 8 concurrent")
    assert tokens == sum(map(generated, ends)) > 100


async def test_the_death_of_the_engine_process_is_told(chat: Chat, peer: Peer, service: ChatInference) -> None:
    """The last one: it takes the engine with it."""
    request = chat.request(STORY, once(1900))
    peer.start(request)
    await peer.begun(request.request_id)
    (core,) = (child for child in psutil.Process().children() if "EngineCore" in " ".join(child.cmdline()))
    core.kill()
    async with asyncio.timeout(10):
        await service.failed()
    deltas = await peer.ended(request.request_id)
    assert deltas[-1].fault.reason == "engine_failed"
    assert deltas[-1].usage.output_tokens == generated(deltas) > 0
    assert not service.load().healthy
