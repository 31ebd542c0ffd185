"""Legacy completions as clients meet them: the official SDK, and OpenAI's schema held against the bytes."""

import asyncio
import json
import math
from typing import Any

import openai
import pytest

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Delta,
    GenerateRequest,
    SessionResponse,
    TokenLogprob,
)
from modelplane.tokenizer.v1.tokenizer_pb2 import RenderRequest, RenderResponse
from modelplane.usage.v1.usage_pb2 import OUTCOME_COMPLETED, Usage
from services.catalog import ScriptSpec
from services.faults import InvalidRequest, RateLimited
from services.gateway.settings import GatewaySettings
from tests.fakes.control import KEY
from tests.fakes.replica import FakeReplica, Frames
from tests.services.gateway.conftest import ALIAS, MODEL, Edge, running_edge, until
from tests.services.gateway.schemas import assert_matches
from tests.services.gateway.test_scripted_engine import RemoteEdge, scripted_replica

URL = "/v1/completions"
TEXT = 'Hello, wörld\n"!"'


class Measured(FakeReplica):
    """Says a list of tokens with log probabilities for each choice, and the prompt before it when that is asked for."""

    def __init__(self, choices: list[list[tuple[bytes, float]]], prompt: list[bytes]) -> None:
        super().__init__()
        self._choices = choices
        self._prompt = prompt

    async def _run(self, request: GenerateRequest, frames: Frames) -> None:
        def send(**fields: Any) -> None:
            frames.put_nowait(SessionResponse(deltas=[Delta(request_id=request.request_id, **fields)]))

        sampling, said = request.sampling, 0
        measured = sampling.HasField("top_logprobs")
        for index in range(sampling.n):
            if sampling.echo:
                values = [math.nan, *[-1.0] * len(self._prompt)]
                tokens = [logprob(raw, value, 1) for raw, value in zip(self._prompt, values, strict=False)]
                send(index=index, text=b"".join(self._prompt).decode(), logprobs=tokens if measured else [])
            for raw, value in self._choices[index][: sampling.max_output_tokens]:
                said += 1
                tokens = [logprob(raw, value, sampling.top_logprobs)] if measured else []
                send(index=index, text=raw.decode(errors="ignore"), tokens=1, logprobs=tokens)
            send(index=index, finish_reason=FINISH_REASON_STOP if sampling.max_output_tokens else FINISH_REASON_LENGTH)
        usage = Usage(
            request_id=request.request_id, input_tokens=len(request.prompt_token_ids), output_tokens=said, model=MODEL
        )
        usage.outcome = OUTCOME_COMPLETED
        send(usage=usage)


def logprob(raw: bytes, value: float, top: int) -> TokenLogprob:
    token = TokenLogprob(token=raw.decode(errors="replace"), raw=raw, logprob=value)
    if not math.isnan(value):
        token.top.extend(TokenLogprob(token=f"alt{i}", raw=b"alt%d" % i, logprob=i - 0.5) for i in range(top))
    return token


def events(body: str) -> list[dict[str, Any]]:
    *lines, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_plain_with_the_sdk(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        raw = await sdk.completions.with_raw_response.create(model=ALIAS, prompt="hello there you")
    answer = raw.parse()
    assert answer.id.startswith("cmpl-") and answer.object == "text_completion"
    assert answer.model == MODEL and answer.system_fingerprint
    (choice,) = answer.choices
    assert (choice.text, choice.index, choice.finish_reason, choice.logprobs) == (TEXT, 0, "stop", None)
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 5, 8)
    request_id = raw.headers["x-request-id"]
    assert raw.headers["x-ratelimit-remaining-tokens"] == "900"
    await until(lambda: request_id in edge.billing.usages)
    assert edge.billing.usages[request_id].operation == "completions"
    assert edge.ratelimit.settled == {request_id: 8}


async def test_with_the_synchronous_sdk(edge: Edge) -> None:
    await edge.add_replica()

    def ask() -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as sdk:
            answer = sdk.completions.create(model=MODEL, prompt="hello")
            chunks = list(sdk.completions.create(model=MODEL, prompt="hello", stream=True))
            return answer.choices[0].text, "".join(chunk.choices[0].text for chunk in chunks)

    assert await asyncio.to_thread(ask) == (TEXT, TEXT)


async def test_stream_with_the_sdk(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        stream = await sdk.completions.create(
            model=MODEL, prompt=["a", "b c"], n=2, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = ["", "", "", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [TEXT] * 4
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 20)
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_an_answer_fits_the_specification(edge: Edge) -> None:
    await edge.add_replica(Measured([[(b"x", -0.5), (b"\xc3", -1), (b"\xa9", float("-inf")), (b"z", -2)]], []))
    for fields in ({}, {"logprobs": 0}, {"logprobs": 5}):
        async with edge.http() as http:
            response = await http.post(URL, json={"model": MODEL, "prompt": "a", **fields})
        assert_matches("CreateCompletionResponse", response.json())
    assert response.json()["choices"][0]["logprobs"] == {
        "tokens": ["x", "bytes:\\xc3", "bytes:\\xa9", "z"],
        "token_logprobs": [-0.5, -1, -9999, -2],
        "top_logprobs": [
            {**{f"alt{i}": i - 0.5 for i in range(5)}, name: value}
            for name, value in (("x", -0.5), ("bytes:\\xc3", -1), ("bytes:\\xa9", -9999), ("z", -2))
        ],
        "text_offset": [0, 1, 1, 2],
    }


async def test_every_chunk_fits_the_specification(edge: Edge) -> None:
    await edge.add_replica(Measured([[(b"x", -1.0), (b"y", -2.0)]], [b"p", b" q"]))
    for usage in (False, True):
        body = {"model": MODEL, "prompt": "p q", "stream": True, "logprobs": 1, "echo": True}
        async with edge.http() as http:
            options = {"stream_options": {"include_usage": True, "include_obfuscation": False}} if usage else {}
            response = await http.post(URL, json=body | options)
        chunks = events(response.text)
        offsets: list[int] = []
        for chunk in chunks:
            assert ("usage" in chunk) == usage
            # Longer or shorter texts are not to be told apart from outside.
            assert ("obfuscation" in chunk) != usage
            chunk.pop("obfuscation", None)
            # Here OpenAI's specification knows no null, and its API answers it.
            if chunk.get("usage", 0) is None:
                del chunk["usage"]
            for choice in chunk["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
                logprobs = choice["logprobs"] or {"text_offset": [], "token_logprobs": [], "top_logprobs": []}
                offsets += logprobs["text_offset"]
                for name in ("token_logprobs", "top_logprobs"):
                    logprobs[name] = [value for value in logprobs[name] if value is not None]
            assert_matches("CreateCompletionResponse", chunk)
        assert offsets == [0, 1, 3, 4]
        if usage:
            assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 4


async def test_echo(edge: Edge) -> None:
    await edge.add_replica(Measured([[(b"!", -0.25)]] * 2, [b"hello", b" you"]))
    async with edge.sdk() as sdk:
        plain = await sdk.completions.create(model=MODEL, prompt="hello you", echo=True, n=2)
        assert [choice.text for choice in plain.choices] == ["hello you!"] * 2
        answer = await sdk.completions.create(model=MODEL, prompt="hello you", echo=True, logprobs=1)
        logprobs = answer.choices[0].logprobs
        assert logprobs
        assert logprobs.tokens == ["hello", " you", "!"]
        assert logprobs.token_logprobs == [None, -1, -0.25]
        assert logprobs.top_logprobs == [None, {"alt0": -0.5, " you": -1}, {"alt0": -0.5, "!": -0.25}]
        assert logprobs.text_offset == [0, 5, 9]
        # The prompt alone, as those who evaluate models ask for it.
        answer = await sdk.completions.create(model=MODEL, prompt="hello you", echo=True, logprobs=1, max_tokens=0)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("hello you", "length")
        assert answer.usage and answer.usage.completion_tokens == 0
    # With a bound of its own: without one, all that is left of the context would be reserved.
    assert [request.max_output_tokens for request in edge.ratelimit.reserved.values()] == [32, 16, 1]


async def test_the_best_of_several(edge: Edge) -> None:
    choices = [
        [(b"low", -3.0)],
        [(b"high", -0.5), (b"!", -1.0)],
        # More in total, less per token.
        [(b"so", -1.0), (b"-so", -1.0), (b".", -1.0)],
        [],
    ]
    replica = await edge.add_replica(Measured(choices, [b"a", b" b", b" c"]))
    async with edge.sdk() as sdk:
        for echo in (False, True):
            answer = await sdk.completions.create(model=MODEL, prompt="a b c", n=2, best_of=4, echo=echo)
            texts = [choice.text.removeprefix("a b c") for choice in answer.choices]
            assert texts == ["high!", "so-so."]
            assert [choice.index for choice in answer.choices] == [0, 1]
            assert all(choice.logprobs is None for choice in answer.choices)
            assert answer.usage and answer.usage.completion_tokens == 6
    assert [request.sampling.n for request in replica.requests] == [4, 4]


async def test_prompts_of_every_kind(edge: Edge) -> None:
    replica = await edge.add_replica()
    kinds: list[tuple[Any, list[int]]] = [
        ("a b", [2]),
        (["a", "b c d"], [1, 3]),
        ([7, 8, 9], [3]),
        ([[7, 8], [9]], [2, 1]),
    ]
    for prompt, lengths in kinds:
        replica.requests.clear()
        async with edge.sdk() as sdk:
            raw = await sdk.completions.with_raw_response.create(model=MODEL, prompt=prompt, n=2, max_tokens=2)
        answer = raw.parse()
        assert [choice.index for choice in answer.choices] == list(range(2 * len(lengths)))
        assert answer.usage and answer.usage.prompt_tokens == sum(lengths)
        assert [len(request.prompt_token_ids) for request in replica.requests] == lengths
        request_id = raw.headers["x-request-id"]
        ids = [f"{request_id}-{index}" for index in range(len(lengths))] if len(lengths) > 1 else [request_id]
        assert [request.request_id for request in replica.requests] == ids
        await until(lambda ids=ids: set(ids) <= set(edge.billing.usages))  # type: ignore[misc]
    assert [list(request.token_ids) for request in edge.tokenizer.rendered[3:]] == [[7, 8, 9], [7, 8], [9]]


async def test_what_reaches_the_engine(edge: Edge) -> None:
    replica = await edge.add_replica()
    async with edge.sdk() as sdk:
        await sdk.completions.create(
            model=ALIAS,
            prompt="a",
            temperature=0,
            top_p=0.5,
            stop=["a", "b"],
            seed=-7,
            max_tokens=9,
            logprobs=3,
            echo=True,
            frequency_penalty=1,
            presence_penalty=-1,
            logit_bias={"5": 10},
            user="u",
        )
        await sdk.completions.create(model=ALIAS, prompt="a")
    full, bare = (request.sampling for request in replica.requests)
    assert (full.temperature, full.top_p, list(full.stop), full.seed, full.n) == (0, 0.5, ["a", "b"], -7, 1)
    assert (full.frequency_penalty, full.presence_penalty, dict(full.logit_bias)) == (1, -1, {5: 10})
    assert (full.max_output_tokens, full.top_logprobs, full.echo) == (9, 3, True)
    assert (bare.max_output_tokens, bare.echo) == (16, False)
    # In one piece, a prompt could not be told from what was generated.
    assert [request.whole for request in replica.requests] == [False, True]
    assert not any(bare.HasField(name) for name in ("temperature", "top_p", "seed", "top_logprobs"))


async def test_a_model_that_cannot_begin_without_a_prompt(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        response = await http.post(URL, json={"model": MODEL})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "prompt", "invalid_value")
    assert await edge.running() == 0


async def test_one_failure_ends_all(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica(["word"] * 500, token_s=0.01))
    render, hold = edge.tokenizer.render, asyncio.Event()

    async def slow_to_refuse(request: RenderRequest) -> RenderResponse:
        if request.text == "bad":
            await hold.wait()
            raise InvalidRequest("context_length_exceeded", "Too long.", param="prompt")
        return await render(request)

    edge.tokenizer.render = slow_to_refuse  # type: ignore[method-assign]
    async with edge.http() as http:
        asking = asyncio.create_task(http.post(URL, json={"model": MODEL, "prompt": ["good", "bad", "good"]}))
        await until(lambda: len(replica.requests) == 2)
        hold.set()
        response = await asking
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    await until(lambda: len(replica.aborted_at) == 2)
    await until(lambda: len(edge.ratelimit.settled) == 2)
    # Whoever got nothing pays nothing.
    assert edge.billing.usages == {} and set(edge.ratelimit.settled.values()) == {0}


async def test_a_failure_after_the_first_byte(edge: Edge) -> None:
    replica = FakeReplica(token_s=0.01)
    replica.fails_after = 2
    await edge.add_replica(replica)
    async with edge.http() as http:
        response = await http.post(URL, json={"model": MODEL, "prompt": ["a", "b"], "stream": True})
    assert response.status_code == 200
    error = json.loads(response.text.split("\n\n")[-2].removeprefix("data: "))
    assert error["error"]["code"] == "engine_failed"
    assert "[DONE]" not in response.text


async def test_a_refusal_by_the_limiter(edge: Edge) -> None:
    await edge.add_replica()
    edge.ratelimit.refusal = RateLimited("rate_limit_requests", "Slow down.", retry_after_ms=1500)
    async with edge.http() as http:
        for body in ({"prompt": "a"}, {"prompt": ["a", "b"], "stream": True}):
            response = await http.post(URL, json={"model": MODEL, **body})
            assert (response.status_code, response.headers["retry-after"]) == (429, "2")


async def test_hang_up_ends_all_runs(edge: Edge) -> None:
    replica = await edge.add_replica(FakeReplica(["word"] * 500, token_s=0.01))
    body = {"model": MODEL, "prompt": ["a", "b", "c"], "stream": True, "max_tokens": 500}
    async with edge.http() as http, http.stream("POST", URL, json=body) as response:
        await anext(response.aiter_lines())
    await until(lambda: len(replica.aborted_at) == 3)
    await until(lambda: len(edge.billing.usages) == 3)
    assert await edge.running() == 0


async def test_bad_requests(edge: Edge) -> None:
    async with edge.http() as http:
        response = await http.post(URL, json={"model": MODEL, "prompt": "a", "suffix": "b"})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "suffix")
        response = await http.post(URL, json={"model": "other", "prompt": "a"})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        response = await http.post(URL, json={"model": MODEL}, headers={"authorization": ""})
        assert response.status_code == 401
    assert edge.ratelimit.reserved == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_with_the_real_replica(stream: bool) -> None:
    body = {"model": MODEL, "prompt": ["one two", "three"], "max_tokens": 3, "logprobs": 2, "stream": stream}
    async with running_edge(kind=RemoteEdge) as edge, scripted_replica(edge, ScriptSpec(tokens=50), "a"):
        async with edge.http() as http:
            response = await http.post(URL, json=body)
        await until(lambda: len(edge.billing.usages) == 2)
    answers = events(response.text) if stream else [response.json()]
    texts, tokens = ["", ""], 0
    for answer in answers:
        for choice in answer["choices"]:
            texts[choice["index"]] += choice["text"]
            tokens += len(choice["logprobs"]["tokens"]) if choice["logprobs"] else 0
    assert texts == [" tok1 tok2 tok3"] * 2 and tokens == 6


async def test_a_repetition_gets_the_first_answer(edge: Edge) -> None:
    replica = await edge.add_replica()
    async with edge.http() as http:
        for stream in (False, True):
            body = {"model": MODEL, "prompt": ["a", "b"], "stream": stream}
            headers = {"idempotency-key": f"key-{stream}"}
            first, again = [await http.post(URL, json=body, headers=headers) for _ in range(2)]
            assert (again.status_code, again.content) == (200, first.content)
            assert again.headers["idempotent-replayed"] == "true"
    assert len(replica.requests) == 4


async def test_a_long_wait_has_comments() -> None:
    settings = GatewaySettings(keep_alive_comment_s=0.05)
    async with running_edge(settings) as edge, edge.http() as http:
        await edge.add_replica(FakeReplica(["word"], token_s=0.3))
        response = await http.post(URL, json={"model": MODEL, "prompt": ["a", "b"], "stream": True})
    assert response.text.startswith(": keep-alive\n\n")
    assert response.headers["x-ratelimit-limit-requests"] == "60"
    assert response.text.count('"text":"word"') == 2 and response.text.endswith("data: [DONE]\n\n")
