"""The real model on the real engine: one start for all of these tests, which run in this order."""

import asyncio
import itertools
import json
import math
import random
import statistics
import string
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
    Constraint,
    Delta,
    GenerateRequest,
    Sampling,
    Thinking,
    TokenLogprob,
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
    engine = VllmEngine(DEFAULT_MODEL, checkpoint, Settings())
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
    left = [child for child in children if lives(child) and ("VLLM" in child.name() or "grammar" in str(child))]
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

    async def ask(
        self, question: str, sampling: Sampling, *, salt: str = "", thinking: Thinking | None = None, said: str = ""
    ) -> list[Delta]:
        """`said` is what the answer begins with, as a part of the prompt."""
        request = self.request(question, sampling)
        request.prompt_token_ids.extend(self._tokenizer.encode(said, add_special_tokens=False).ids)
        request.cache_salt = salt
        if thinking:
            request.thinking.CopyFrom(thinking)
        return await self._peer.run(request)


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


async def test_an_abort_frees_the_engine_at_once(chat: Chat, peer: Peer, service: ChatInference) -> None:
    request = chat.request(STORY, Sampling(n=2, max_output_tokens=1900))
    peer.start(request)
    await peer.begun(request.request_id)
    began = time.monotonic()
    peer.abort(request.request_id)
    deltas = await peer.ended(request.request_id)
    # To the end it would take many times as long.
    assert time.monotonic() - began < 3
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


def logprobs(deltas: list[Delta], choice: int = 0) -> list[TokenLogprob]:
    return [logprob for delta in deltas if delta.index == choice for logprob in delta.logprobs]


def raw(deltas: list[Delta], choice: int = 0) -> bytes:
    return b"".join(logprob.raw for logprob in logprobs(deltas, choice))


def held(schema: object) -> Constraint:
    return Constraint(json_schema=json.dumps(schema))


async def test_greedy_choices_in_the_plural_are_alike(chat: Chat) -> None:
    deltas = await chat.ask(FRANCE, Sampling(n=3, temperature=0, max_output_tokens=4))
    assert {text(deltas, choice) for choice in range(3)} == {"The capital of France"}


async def test_penalties_and_bias(chat: Chat, tokenizer: Tokenizer) -> None:
    plain = text(await chat.ask(STORY, once(40, temperature=0)))
    for name in ("frequency_penalty", "presence_penalty"):
        assert text(await chat.ask(STORY, once(40, temperature=0, **{name: 2.0}))) != plain
    (token,) = tokenizer.encode("The", add_special_tokens=False).ids
    assert not text(await chat.ask(FRANCE, once(4, temperature=0, logit_bias={token: -100.0}))).startswith("The")
    assert text(await chat.ask(FRANCE, once(3, temperature=0, logit_bias={token: 100.0}))) == "TheTheThe"
    fault = (await chat.ask(FRANCE, once(3, logit_bias={49152: 1.0})))[-1].fault
    assert (fault.reason, fault.param) == ("invalid_value", "logit_bias")


async def test_log_probabilities_are_those_of_the_text(chat: Chat) -> None:
    deltas = await chat.ask(FRANCE, once(50, temperature=0, top_logprobs=3))
    assert raw(deltas).decode() == text(deltas) == "The capital of France is Paris."
    for place in logprobs(deltas):
        assert place.token == place.raw.decode() and place.logprob <= 0
        assert (place.top[0].token, place.top[0].logprob) == (place.token, place.logprob)
        assert [top.logprob for top in place.top] == sorted((top.logprob for top in place.top), reverse=True)
        assert len(place.top) == 3
    # The token that ended the turn is billed, and is no part of the text.
    assert len(logprobs(deltas)) == generated(deltas) - 1
    none = await chat.ask(FRANCE, Sampling(n=2, temperature=0, max_output_tokens=3, top_logprobs=0))
    assert [len(logprobs(none, choice)) for choice in range(2)] == [3, 3]
    assert not any(place.top for place in logprobs(none))


async def test_log_probabilities_of_half_characters(chat: Chat) -> None:
    """The bias makes it say the three bytes of a character that has no token of its own."""
    said = await chat.ask("Repeat: 🐉🐉🐉🐉🐉🐉", once(24, temperature=0, top_logprobs=0), said="🐉🐉🐉🐉")
    whole = raw(said).decode(errors="ignore")
    assert text(said).rstrip("\ufffd") == whole.rstrip("\ufffd") and "🐉" in whole
    assert any(place.token == "\ufffd" for place in logprobs(said))


async def test_a_stop_string_cuts_log_probabilities_with_the_text(chat: Chat) -> None:
    for stop in (" is Par", "ance is", "e"):
        deltas = await chat.ask(FRANCE, once(50, temperature=0, stop=[stop], top_logprobs=0))
        said = text(deltas)
        assert said.startswith(raw(deltas).decode())
        assert len(said) - len(raw(deltas)) < len(" France") and reasons(deltas) == [FINISH_REASON_STOP]
        assert deltas[-1].usage.output_tokens == generated(deltas) > len(logprobs(deltas))


async def test_echo(chat: Chat, checkpoint: Path) -> None:
    prompt = rendered(checkpoint, FRANCE)
    shown = prompt.replace("<|im_start|>", "").replace("<|im_end|>", "")
    deltas = await chat.ask(FRANCE, Sampling(n=2, max_output_tokens=2, echo=True, top_logprobs=1, temperature=0))
    for choice in range(2):
        assert text(deltas, choice) == raw(deltas, choice).decode() == shown + "The capital"
    assert deltas[-1].usage.output_tokens == generated(deltas) == 4
    alone = await chat.ask(FRANCE, once(0, echo=True, top_logprobs=1), said="Paris")
    assert text(alone) == shown + "Paris" and alone[-1].usage.output_tokens == 0
    assert reasons(alone) == [FINISH_REASON_LENGTH] and alone[-1].usage.input_tokens == 38
    assert all(place.logprob <= 0 for place in logprobs(alone))
    assert text(await chat.ask(FRANCE, once(1, echo=True, temperature=0))) == shown + "The"


async def test_the_first_token_of_all_has_no_log_probability(peer: Peer, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("One two three", add_special_tokens=False).ids
    sampling = once(0, echo=True, top_logprobs=0)
    request = GenerateRequest(request_id="echo", model=DEFAULT_MODEL.name, prompt_token_ids=ids, sampling=sampling)
    first, *others = logprobs(await peer.run(request))
    assert math.isnan(first.logprob) and first.token == "One"
    assert all(place.logprob < 0 for place in others) and len(others) == 2


async def test_another_salt_shares_nothing_in_the_prefix_cache(chat: Chat) -> None:
    question = "Count: " + "six seven eight nine ten " * 40
    cached = [
        (await chat.ask(question, once(1), salt=salt))[-1].usage.cached_input_tokens
        for salt in ("a", "a", "b", "", "b")
    ]
    first, again, other, none, other_again = cached
    assert first == other == none == 0
    assert again == other_again > 100


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def test_an_answer_keeps_to_its_schema(chat: Chat) -> None:
    sampling = Sampling(n=3, seed=5, temperature=1.0, max_output_tokens=80, constraint=held(PERSON), top_logprobs=0)
    deltas = await chat.ask("Invent a person.", sampling)
    for choice in range(3):
        person = json.loads(text(deltas, choice))
        assert set(person) == {"name", "age"} and 0 <= person["age"] <= 120
        assert raw(deltas, choice).decode() == text(deltas, choice)
    assert reasons(deltas) == [FINISH_REASON_STOP] * 3
    question = 'Answer with the JSON object {"ok": true} and nothing else.'
    deltas = await chat.ask(question, once(200, temperature=0, constraint=Constraint(json_object=True)))
    assert isinstance(json.loads(text(deltas)), dict)


async def test_a_tool_call_in_a_structural_tag(chat: Chat) -> None:
    content = {"type": "json_schema", "json_schema": PERSON}
    tag = {
        "type": "tag",
        "begin": '<tool_call>\n{"name": "add", "arguments": ',
        "content": content,
        "end": "}\n</tool_call>",
    }
    calls = {
        "type": "tags_with_separator",
        "tags": [tag],
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": True,
    }
    constraint = Constraint(structural_tag=json.dumps({"type": "structural_tag", "format": calls}))
    # So many that it ends by itself, whatever it says: that differs from one kind of processor to the next.
    said = text(await chat.ask("Add a person.", once(400, seed=1, constraint=constraint)))
    call = json.loads(said.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    assert call["name"] == "add" and set(call["arguments"]) == {"name", "age"}


async def test_what_the_engine_cannot_hold_to_is_refused(chat: Chat) -> None:
    not_held: list[tuple[Constraint, str, str]] = [
        (held({"type": "object", "properties": {"a": {"not": {}}}}), "'not' at #/properties/a", "response_format"),
        (held({"$ref": "#/$defs/none"}), "$defs", "response_format"),
        (held({"enum": ["x" * 300_000]}), "300", "response_format"),
        (Constraint(structural_tag="{}"), "format", "tools"),
    ]
    for constraint, words, param in not_held:
        last = (await chat.ask(FRANCE, once(5, constraint=constraint)))[-1]
        assert (last.fault.reason, last.fault.param) == ("invalid_schema", param)
        assert words in last.fault.message
        assert last.usage.input_tokens == last.usage.output_tokens == 0


def heavy_schema(seed: int) -> dict[str, object]:
    """Seconds of compilation."""
    words = random.Random(seed)

    def made(levels: int) -> dict[str, object]:
        if not levels:
            return {"type": "string"}
        names = ["".join(words.choices(string.ascii_lowercase, k=6)) for _ in range(2)]
        properties = {name: made(levels - 1) for name in names}
        return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}

    return made(10)


async def test_a_heavy_schema_does_not_hold_up_a_running_stream(chat: Chat, peer: Peer) -> None:
    async def gaps(during: float) -> list[float]:
        """Times between the deltas of a running stream."""
        request = chat.request(STORY, once(1900, logit_bias={2: -100.0}))
        peer.start(request)
        await peer.begun(request.request_id)
        until, times = time.monotonic() + during, list[float]()
        while time.monotonic() < until:
            seen = len(peer.deltas[request.request_id])
            while len(peer.deltas[request.request_id]) == seen:
                await asyncio.sleep(0.001)
            times.append(time.monotonic())
        peer.abort(request.request_id)
        await peer.ended(request.request_id)
        return [later - earlier for earlier, later in itertools.pairwise(times)]

    without = await gaps(3)
    began = time.monotonic()
    heavy = asyncio.create_task(chat.ask(FRANCE, once(3, constraint=held(heavy_schema(1)))))
    with_heavy = await gaps(5)
    last = (await heavy)[-1]
    print(f"heavy: {time.monotonic() - began:.1f} s, {last.fault.message or 'answered'}")
    for name, times in (("without", without), ("with", with_heavy)):
        print(f"{name}: median {statistics.median(times):.4f} s, max {max(times):.4f} s of {len(times)}")
    assert statistics.median(with_heavy) < 4 * statistics.median(without)
    assert max(with_heavy) < max(without) + 2


async def test_an_abort_while_its_grammar_is_made(chat: Chat, peer: Peer, service: ChatInference) -> None:
    request = chat.request(FRANCE, once(3, constraint=held(heavy_schema(2))))
    peer.start(request)
    while request.request_id not in service.load().request_ids:
        await asyncio.sleep(0.001)
    peer.abort(request.request_id)
    # Less than making it takes.
    async with asyncio.timeout(3):
        deltas = await peer.ended(request.request_id)
    assert (deltas[-1].usage.outcome, deltas[-1].usage.output_tokens) == (OUTCOME_ABORTED, 0)
    assert not service.load().request_ids


async def test_thinking_is_dropped_bounded_and_counted(chat: Chat) -> None:
    thinking = Thinking(begin="<think>", end="</think>", budget_tokens=10)
    deltas = await chat.ask(FRANCE, once(60, temperature=0, constraint=held(PERSON)), thinking=thinking)
    assert set(json.loads(text(deltas))) == {"name", "age"}
    usage = deltas[-1].usage
    assert 10 < usage.reasoning_tokens <= 10 + 10 and usage.output_tokens == generated(deltas) > usage.reasoning_tokens
    thinking.open = True
    deltas = await chat.ask(FRANCE, once(60, temperature=0, top_logprobs=0), thinking=thinking, said="<think>")
    assert "think" not in text(deltas) and raw(deltas).decode() == text(deltas) != ""
    assert 10 < deltas[-1].usage.reasoning_tokens <= 20
    thinking.budget_tokens = 0
    deltas = await chat.ask(FRANCE, once(20, temperature=0), thinking=thinking)
    assert (text(deltas), deltas[-1].usage.reasoning_tokens) == ("", generated(deltas))


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
    async with asyncio.timeout(30):
        await service.failed()
    deltas = await peer.ended(request.request_id)
    assert deltas[-1].fault.reason == "engine_failed"
    assert deltas[-1].usage.output_tokens == generated(deltas) > 0
    assert not service.load().healthy
