"""Chat completions as clients meet them: the official SDK, and OpenAI's schemas held against the bytes."""

import json
from typing import Any

from openai.types.chat import ChatCompletionMessageParam

from services.gateway.settings import GatewaySettings
from tests.fakes.replica import FakeReplica
from tests.services.gateway.conftest import ALIAS, MODEL, Edge, running_edge, until
from tests.services.gateway.schemas import assert_matches

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there you"}]
BODY: dict[str, Any] = {"model": MODEL, "messages": HELLO}
TEXT = 'Hello, wörld\n"!"'


async def test_plain_with_the_sdk(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(model=ALIAS, messages=HELLO)
    answer = raw.parse()
    assert answer.model == MODEL
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 5, 8)
    request_id = raw.headers["x-request-id"]
    await until(lambda: request_id in edge.billing.usages)
    assert edge.ratelimit.settled == {request_id: 8}
    assert edge.billing.usages[request_id].attribution.key_id == "key-1"
    assert await edge.running() == 0


async def test_stream_with_the_sdk(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage and chunks[-1].usage.total_tokens == 8
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_plain_fits_the_specification(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.http() as http:
        response = await http.post("/v1/chat/completions", json=BODY)
    answer = response.json()
    assert_matches("CreateChatCompletionResponse", answer)
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 1, "audio_tokens": 0}
    assert answer["choices"][0]["message"]["refusal"] is None
    assert answer["service_tier"] == "default"
    headers = response.headers
    assert headers["content-type"] == "application/json"
    assert headers["openai-organization"] == "org-1"
    assert headers["openai-version"] == "2020-10-01"
    assert int(headers["openai-processing-ms"]) >= 0
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-tokens"]) == ("60", "900")
    assert (headers["x-ratelimit-reset-requests"], headers["x-ratelimit-reset-tokens"]) == ("1s", "6s")


async def test_every_chunk_fits_the_specification(edge: Edge) -> None:
    await edge.add_replica()
    for options in ({}, {"stream_options": {"include_usage": True}}):
        async with edge.http() as http:
            response = await http.post("/v1/chat/completions", json={**BODY, "stream": True, **options})
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-ratelimit-limit-tokens"] == "1000"
        *events, done, rest = response.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events]
        for chunk in chunks:
            assert_matches("CreateChatCompletionStreamResponse", chunk)
            assert ("usage" in chunk) == bool(options)
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        if options:
            assert all(chunk["usage"] is None for chunk in chunks[:-1])
            assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 5


async def test_several_choices(edge: Edge) -> None:
    await edge.add_replica()
    async with edge.sdk() as sdk:
        answer = await sdk.chat.completions.create(model=MODEL, messages=HELLO, n=3, max_tokens=2)
        assert [(c.index, c.message.content, c.finish_reason) for c in answer.choices] == [
            (index, "Hello,", "length") for index in range(3)
        ]
        assert answer.usage and answer.usage.completion_tokens == 6
        stream = await sdk.chat.completions.create(model=MODEL, messages=HELLO, n=3, stream=True)
        texts = ["", "", ""]
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert texts == [TEXT] * 3
    assert [request.max_output_tokens for request in edge.ratelimit.reserved.values()] == [6, 3 * 997]


async def test_what_reaches_the_engine(edge: Edge) -> None:
    replica = await edge.add_replica()
    async with edge.sdk() as sdk:
        await sdk.chat.completions.create(
            model=ALIAS, messages=HELLO, temperature=0, top_p=0.5, stop=["a", "b"], seed=-7, max_completion_tokens=9
        )
        await sdk.chat.completions.create(model=ALIAS, messages=HELLO)
    full, bare = replica.requests
    assert (full.model, full.operation, full.service_tier) == (MODEL, "chat.completions", "default")
    assert list(full.prompt_token_ids) == [0, 1, 2]
    sampling = full.sampling
    assert (sampling.temperature, sampling.top_p, list(sampling.stop)) == (0, 0.5, ["a", "b"])
    assert (sampling.seed, sampling.n, sampling.max_output_tokens) == (-7, 1, 9)
    assert not any(bare.sampling.HasField(name) for name in ("temperature", "top_p", "seed"))
    assert bare.sampling.max_output_tokens == 997
    assert replica.sessions == 1


async def test_half_characters_make_no_chunk(edge: Edge) -> None:
    await edge.add_replica(FakeReplica(["", "", "é"]))
    async with edge.sdk() as sdk:
        stream = await sdk.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        contents = [chunk.choices[0].delta.content async for chunk in stream]
    assert contents == ["", "é", None]


async def test_a_long_wait_has_comments() -> None:
    settings = GatewaySettings(keep_alive_comment_s=0.05)
    async with running_edge(settings) as edge, edge.http() as http:
        await edge.add_replica(FakeReplica(["one", "two"], token_s=0.3))
        response = await http.post("/v1/chat/completions", json={**BODY, "stream": True})
    before, between, after = response.text.split('"content":"')[0], response.text, response.text[-14:]
    assert before.startswith(": keep-alive\n\n") and between.count(": keep-alive\n\n") > 6
    assert response.headers["x-ratelimit-limit-requests"] == "60"
    assert after == "data: [DONE]\n\n"


async def test_padding_hides_the_length_of_a_text(edge: Edge) -> None:
    await edge.add_replica(FakeReplica(["a", "abcdefgh", "abcdefghijklmnop"]))

    async def sizes(**options: bool) -> set[int]:
        async with edge.http() as http:
            body = {**BODY, "stream": True, "stream_options": options}
            lines = (await http.post("/v1/chat/completions", json=body)).text.split("\n\n")
        return {len(line) for line in lines if '"content":"a' in line}

    assert len(await sizes(include_obfuscation=False)) > 1
    assert len(await sizes()) == 1
