"""Chat completions to the letter, on a real model: what the official SDKs offer works, and says what it should.

The model is small and often wrong. What is tested is form: every call parses, every structured answer validates.
"""

import asyncio
import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal, cast

import jsonschema
import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.journeys.node import run_node
from tests.journeys.platform_process import PlatformProcess, wait_until

MODEL = "smollm2-135m-instruct"
HERE = Path(__file__).parent
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                # This model would go on for ever.
                "city": {"type": "string", "maxLength": 20},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
TIME: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
    },
}
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]

pytestmark = [pytest.mark.engine, pytest.mark.ray, pytest.mark.timeout(900)]


class Person(BaseModel):
    name: str
    age: int
    mood: Literal["happy", "sad"]


@pytest.fixture(scope="module")
def sdk(real_platform: PlatformProcess) -> OpenAI:
    return real_platform.sdk(max_retries=0, timeout=240)


def test_a_structured_answer_parses_into_its_class(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Anna is 30 years old and happy. Give her as JSON."}],
        response_format=Person,
        max_completion_tokens=200,
        temperature=0,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Person)


def test_json_mode_gives_an_object(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Give a JSON object with a colour and its hex code."}],
        response_format={"type": "json_object"},
        max_completion_tokens=200,
        temperature=0,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content or ""), dict)


def test_a_named_function_is_called_with_valid_arguments(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER, TIME],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        max_completion_tokens=200,
        temperature=0,
    )
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls and choice.message.content is None
    for call in choice.message.tool_calls:
        assert call.type == "function" and call.function.name == "get_weather" and call.id.startswith("call_")
        jsonschema.validate(json.loads(call.function.arguments), dict(WEATHER["function"]["parameters"]))


def test_required_tools_are_called_and_their_results_read(sdk: OpenAI) -> None:
    first = sdk.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER, TIME],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=200,
        temperature=0,
    )
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.tool_calls and len(message.tool_calls) == 1
    # As clients do: the message goes back as it came.
    back = cast(ChatCompletionMessageParam, message.model_dump())
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=[
            *QUESTION,
            back,
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "21 degrees, sunny"},
        ],
        tools=[WEATHER, TIME],
        tool_choice="none",
        max_completion_tokens=60,
        temperature=0,
    )
    assert answer.choices[0].message.content and answer.choices[0].message.tool_calls is None


def test_calls_stream_name_first_and_add_up_to_the_whole(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
        max_completion_tokens=200,
        temperature=0,
    ) as stream:
        events = list(stream)
        whole = stream.get_final_completion()
    chunks = [event.chunk for event in events if event.type == "chunk"]
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].id and deltas[0].function and deltas[0].function.name == "get_weather"
    assert len(deltas) > 3
    assert whole.choices[0].message.tool_calls
    jsonschema.validate(
        json.loads(whole.choices[0].message.tool_calls[0].function.arguments), dict(WEATHER["function"]["parameters"])
    )


def test_log_probabilities_cover_the_text(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say: grüezi 😀"}],
        logprobs=True,
        top_logprobs=3,
        max_completion_tokens=20,
        temperature=0,
    )
    [choice] = answer.choices
    assert choice.logprobs and choice.logprobs.content and answer.usage
    said = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert said.startswith((choice.message.content or "").encode().rstrip("\ufffd".encode()))
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        # Greedy: what was said was the likeliest.
        assert math.isclose(token.logprob, token.top_logprobs[0].logprob, abs_tol=0.2)


def test_choices_stream_interleaved(sdk: OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell me a story."}],
        n=3,
        max_completion_tokens=24,
        temperature=1,
        seed=5,
        stream=True,
    )
    order = [choice.index for chunk in stream for choice in chunk.choices if choice.delta.content]
    assert set(order) == {0, 1, 2} and order != sorted(order)


def test_a_seed_repeats_and_a_bias_bans(sdk: OpenAI) -> None:
    def say(seed: int, bias: dict[str, int] | None = None) -> str:
        answer = sdk.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Invent a name."}],
            seed=seed,
            temperature=1.5,
            max_completion_tokens=16,
            logit_bias=bias or {},
        )
        return answer.choices[0].message.content or ""

    assert say(7) == say(7)
    assert len({say(seed) for seed in range(5)}) > 1
    assert len(set(say(3, {"28": 100}).strip())) <= 1


def test_a_repeated_prompt_comes_from_the_cache(sdk: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count the sheep. " * 60}]

    def cached() -> int:
        answer = sdk.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=2)
        assert answer.usage and answer.usage.prompt_tokens_details
        return answer.usage.prompt_tokens_details.cached_tokens or 0

    assert cached() == 0
    assert cached() >= 128


def test_a_schema_outside_the_strict_subset_is_refused_with_its_place(sdk: OpenAI) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {}}},
        "required": ["a"],
    }
    with pytest.raises(BadRequestError) as caught:
        sdk.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
        )
    assert caught.value.param == "response_format"
    assert "additionalProperties" in str(caught.value)


def test_legacy_completions_continue_and_echo(sdk: OpenAI) -> None:
    prompt = "The capital of France is"
    answer = sdk.completions.create(model=MODEL, prompt=prompt, echo=True, logprobs=2, max_tokens=4, temperature=0)
    [choice] = answer.choices
    assert choice.text.startswith(prompt) and "Paris" in choice.text
    assert choice.logprobs and choice.logprobs.tokens and choice.logprobs.token_logprobs
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    only = sdk.completions.create(model=MODEL, prompt=prompt, echo=True, logprobs=0, max_tokens=0)
    assert only.choices[0].text == prompt and only.usage and only.usage.completion_tokens == 0
    best = sdk.completions.create(model=MODEL, prompt=[prompt, "Two and two are"], best_of=3, max_tokens=4)
    assert [choice.index for choice in best.choices] == [0, 1]


def test_a_stored_completion_is_found_again(sdk: OpenAI) -> None:
    kept = sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, max_completion_tokens=8, store=True, metadata={"journey": "stored"}
    )

    def found() -> bool:
        return [item.id for item in sdk.chat.completions.list(metadata={"journey": "stored"})] == [kept.id]

    wait_until(found, 30, "the completion is stored")
    again = sdk.chat.completions.retrieve(kept.id)
    assert again.choices[0].message.content == kept.choices[0].message.content
    [question] = sdk.chat.completions.messages.list(kept.id)
    assert question.content == QUESTION[0]["content"]
    assert sdk.chat.completions.delete(kept.id).deleted
    assert not found()


def test_the_same_idempotency_key_gives_the_same_answer(sdk: OpenAI, real_platform: PlatformProcess) -> None:
    def ask() -> bytes:
        raw = sdk.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=QUESTION,
            temperature=1.5,
            max_completion_tokens=12,
            extra_headers={"Idempotency-Key": "journey-1"},
        )
        return raw.content

    first = ask()
    tokens = real_platform.metric("modelplane_tokens_total", kind="output")
    assert ask() == first
    assert real_platform.metric("modelplane_tokens_total", kind="output") == tokens


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_the_async_sdk_streams_with_its_helpers(real_platform: PlatformProcess) -> None:
    """`stream` with its events, `parse` into a class while it streams, and several at once."""
    async with real_platform.async_sdk(max_retries=0, timeout=240) as sdk:

        async def story(seed: int) -> str:
            text = ""
            asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
            async with sdk.chat.completions.stream(
                model=MODEL,
                messages=asked,
                # The helper takes an answer that was cut off for a failure.
                stop=["."],
                max_completion_tokens=200,
                temperature=0,
                seed=seed,
                stream_options={"include_usage": True},
            ) as stream:
                async for event in stream:
                    if event.type == "content.delta":
                        text += event.delta
                final = await stream.get_final_completion()
            assert final.choices[0].message.content == text
            assert final.usage and final.usage.completion_tokens > 0
            return text

        assert all(await asyncio.gather(*(story(seed) for seed in range(4))))

        # As the SDK's `beta` namespace, which older programs use.
        asked: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": "Anna is 30 years old and happy. Give her as JSON."}
        ]
        async with sdk.beta.chat.completions.stream(
            model=MODEL, messages=asked, response_format=Person, max_completion_tokens=200, temperature=0
        ) as parsing:
            kinds = [event.type async for event in parsing]
            person = (await parsing.get_final_completion()).choices[0].message.parsed
        assert isinstance(person, Person) and "content.done" in kinds
        parsed = await sdk.beta.chat.completions.parse(
            model=MODEL, messages=asked, response_format=Person, max_completion_tokens=200, temperature=0
        )
        assert isinstance(parsed.choices[0].message.parsed, Person)


def test_the_node_sdk_does_the_same(real_platform: PlatformProcess) -> None:
    report = run_node(HERE / "node" / "chat.mjs", real_platform, MODEL)
    assert report["plain"] and report["streamed"] == report["plain"]
    assert report["call"]["name"] == "get_weather" and set(report["call"]["arguments"]) == {"city", "unit"}
    assert isinstance(report["parsed"]["age"], int)
    assert report["refused"] == {"status": 400, "param": "temperature", "code": "decimal_above_max_value"}
    assert report["aborted"]
