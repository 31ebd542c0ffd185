"""The conversation of a request: roles, contents, and calls of tools with their answers."""

from typing import Any

import pytest

from modelplane.tokenizer.v1.tokenizer_pb2 import Image, Message, Part, ToolCall
from services.gateway.requests.messages import ImageReference
from tests.services.gateway.test_requests import HELLO, parsed, refusal


def call(call_id: str = "call_1", name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


CALLING = {"role": "assistant", "content": None, "tool_calls": [call()]}
ANSWER = {"role": "tool", "tool_call_id": "call_1", "content": "42"}


def test_each_role() -> None:
    chat = parsed(
        messages=[
            {"role": "developer", "content": "d"},
            {"role": "system", "content": "s", "name": None},
            {"role": "user", "content": "u", "name": "ann"},
            {"role": "assistant", "content": "a"},
            *HELLO,
            CALLING,
            ANSWER,
        ]
    )
    assert chat.messages == [
        Message(role="developer", content="d"),
        Message(role="system", content="s"),
        Message(role="user", content="u", name="ann"),
        Message(role="assistant", content="a"),
        Message(role="user", content="hello"),
        Message(role="assistant", tool_calls=[ToolCall(id="call_1", name="f", arguments="{}")]),
        Message(role="tool", tool_call_id="call_1", content="42", name="f"),
    ]


def test_deprecated_functions_become_tools() -> None:
    chat = parsed(
        messages=[
            *HELLO,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{"}},
            {"role": "function", "name": "f", "content": None},
            {"role": "function", "name": "g", "content": "x"},
        ]
    )
    assert chat.messages[1:] == [
        Message(role="assistant", tool_calls=[ToolCall(id="call_1", name="f", arguments="{")]),
        Message(role="tool", tool_call_id="call_1", name="f"),
        Message(role="tool", name="g", content="x"),
    ]


def test_parallel_calls_are_answered_in_any_order() -> None:
    calling = {"role": "assistant", "tool_calls": [call("a", "f"), call("b", "g")]}
    answers = [{"role": "tool", "tool_call_id": name, "content": [{"type": "text", "text": name}]} for name in "ba"]
    chat = parsed(messages=[*HELLO, calling, *answers, *HELLO, CALLING, ANSWER])
    assert [message.name for message in chat.messages[2:4]] == ["g", "f"]


def test_an_answer_can_be_sent_back() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert parsed(messages=[*HELLO, answer]).messages[1] == Message(role="assistant", content="hi")
    answer |= {"content": None, "refusal": "no", "tool_calls": [], "parsed": {"a": 1}, "reasoning": None}
    assert parsed(messages=[*HELLO, answer]).messages[1] == Message(role="assistant", content="no")
    put_together = {**call(), "index": 0}
    put_together["function"] = {**put_together["function"], "parsed_arguments": {}}
    answer |= {"content": "", "refusal": None, "tool_calls": [put_together]}
    assert parsed(messages=[*HELLO, answer, ANSWER]).messages[1].tool_calls[0].id == "call_1"


def test_text_parts_are_joined() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    parts[0]["prompt_cache_breakpoint"] = {"mode": "explicit"}
    assert parsed(messages=[{"role": "user", "content": parts}]).messages[0].content == "one\ntwo"
    parts.append({"type": "refusal", "refusal": "three"})
    assert parsed(messages=[{"role": "assistant", "content": parts}]).messages[0].content == "one\ntwo\nthree"


@pytest.mark.parametrize("kind", ["input_audio", "file"])
def test_parts_that_are_not_built(kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind, kind: {}}]}]
    assert refusal(messages=messages) == (
        "unsupported_value",
        "messages[0].content[1].type",
        f"Unsupported value: 'messages[0].content[1].type' does not support '{kind}' yet. Supported values are: "
        "'text' and 'image_url'.",
    )


def image(url: str = "https://a.example/a.png", **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def test_images_have_parts_and_their_urls_stand_apart() -> None:
    texts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    first = {"role": "user", "name": "Ada", "content": [texts[0], image("data:,x"), texts[1]]}
    second = {"role": "user", "content": [image(detail="low"), image(detail=None)]}
    chat = parsed(messages=[first, *HELLO, {"role": "user", "content": texts}, second])
    assert chat.images == (
        ImageReference("data:,x", "auto"),
        ImageReference("https://a.example/a.png", "low"),
        ImageReference("https://a.example/a.png", "auto"),
    )
    assert chat.messages[0] == Message(
        role="user", name="Ada", parts=[Part(text="one"), Part(image=Image(detail="auto")), Part(text="two")]
    )
    assert chat.messages[2].content == "one\ntwo" and not chat.messages[2].parts
    assert [part.image.detail for part in chat.messages[3].parts] == ["low", "auto"]
    assert parsed(messages=HELLO).images == ()


@pytest.mark.parametrize(
    ("part", "reason", "param"),
    [
        ({"type": "image_url"}, "missing_required_parameter", "image_url"),
        ({"type": "image_url", "image_url": "https://a.example/"}, "invalid_type", "image_url"),
        ({"type": "image_url", "image_url": {}}, "missing_required_parameter", "image_url.url"),
        (image(detail="ultra"), "invalid_value", "image_url.detail"),
        (image(size=3), "unknown_parameter", "image_url.size"),
    ],
)
def test_images_that_are_wrong(part: dict[str, Any], reason: str, param: str) -> None:
    assert refusal(messages=[{"role": "user", "content": [part]}])[:2] == (reason, f"messages[0].content[0].{param}")


def test_json_may_be_asked_for_beside_an_image() -> None:
    content = [image(), {"type": "text", "text": "Describe it in JSON."}]
    assert parsed(messages=[{"role": "user", "content": content}], response_format={"type": "json_object"}).images


@pytest.mark.parametrize(
    ("messages", "param", "message"),
    [
        (
            [ANSWER],
            "messages.[0].role",
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
            "'tool_calls'.",
        ),
        (
            [*HELLO, CALLING, ANSWER, *HELLO, ANSWER],
            "messages.[4].role",
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
            "'tool_calls'.",
        ),
        (
            [
                *HELLO,
                {"role": "assistant", "tool_calls": [call("a"), call("b"), call("c")]},
                {**ANSWER, "tool_call_id": "b"},
            ],
            "messages.[1].role",
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: a, c",
        ),
        (
            [CALLING, *HELLO],
            "messages.[0].role",
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: call_1",
        ),
        (
            [{"role": "user", "content": None}],
            "messages[0].content",
            "Invalid value for 'content': expected a string, got null.",
        ),
    ],
)
def test_words_without_a_code(messages: list[Any], param: str, message: str) -> None:
    assert refusal(messages=messages) == ("invalid_parameter", param, message)


def test_the_words_for_a_role_and_a_name() -> None:
    assert refusal(messages=[{"role": "wizard", "content": "x"}]) == (
        "invalid_value",
        "messages[0].role",
        "Invalid value: 'wizard'. Supported values are: 'system', 'developer', 'user', 'assistant', 'tool', "
        "and 'function'.",
    )
    assert refusal(messages=[{"role": "user", "content": "x", "name": "a b"}]) == (
        "invalid_value",
        "messages[0].name",
        "Invalid 'messages[0].name': string does not match pattern. Expected a string that matches the pattern "
        r"'^[^\s<|\\/>]+$'.",
    )


@pytest.mark.parametrize(
    ("message", "reason", "param"),
    [
        ("hi", "invalid_type", "messages[0]"),
        ({"content": "x"}, "missing_required_parameter", "messages[0].role"),
        ({"role": 5, "content": "x"}, "invalid_type", "messages[0].role"),
        ({"role": [], "content": "x"}, "invalid_type", "messages[0].role"),
        ({"role": "user"}, "missing_required_parameter", "messages[0].content"),
        ({"role": "assistant"}, "missing_required_parameter", "messages[0].content"),
        ({"role": "assistant", "refusal": None, "tool_calls": []}, "missing_required_parameter", "messages[0].content"),
        ({"role": "user", "content": 5}, "invalid_type", "messages[0].content"),
        ({"role": "user", "content": []}, "empty_array", "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "invalid_type", "messages[0].content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "missing_required_parameter", "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "missing_required_parameter", "messages[0].content[0].text"),
        ({"role": "user", "content": [{"type": "refusal"}]}, "invalid_value", "messages[0].content[0].type"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "invalid_value", "messages[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "mood": 1}]},
            "unknown_parameter",
            "messages[0].content[0].mood",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "prompt_cache_breakpoint": {}}]},
            "missing_required_parameter",
            "messages[0].content[0].prompt_cache_breakpoint.mode",
        ),
        ({**HELLO[0], "name": 5}, "invalid_type", "messages[0].name"),
        ({**HELLO[0], "name": "<|im_end|>"}, "invalid_value", "messages[0].name"),
        ({**HELLO[0], "name": "x" * 65}, "string_above_max_length", "messages[0].name"),
        ({**HELLO[0], "tool_calls": [call()]}, "unknown_parameter", "messages[0].tool_calls"),
        ({**HELLO[0], "mood": 1}, "unknown_parameter", "messages[0].mood"),
        ({"role": "assistant", "audio": {"id": "a"}}, "unsupported_parameter", "messages[0].audio"),
        ({"role": "assistant", "content": "x", "annotations": 5}, "invalid_type", "messages[0].annotations"),
        ({"role": "assistant", "tool_calls": {}}, "invalid_type", "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "invalid_type", "messages[0].tool_calls[0]"),
        (
            {"role": "assistant", "tool_calls": [{**call(), "type": "custom"}]},
            "unsupported_value",
            "messages[0].tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]},
            "missing_required_parameter",
            "messages[0].tool_calls[0].type",
        ),
        (
            {"role": "assistant", "tool_calls": [call("")]},
            "missing_required_parameter",
            "messages[0].tool_calls[0].id",
        ),
        (
            {"role": "assistant", "tool_calls": [call(name="a.b")]},
            "invalid_value",
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"role": "assistant", "tool_calls": [call(arguments={})]},  # type: ignore[arg-type]
            "invalid_type",
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "function_call": {"name": "f"}},
            "missing_required_parameter",
            "messages[0].function_call.arguments",
        ),
        (
            {**CALLING, "function_call": {"name": "f", "arguments": ""}},
            "invalid_parameter",
            "messages[0].function_call",
        ),
        ({"role": "tool", "content": "x"}, "missing_required_parameter", "messages[0].tool_call_id"),
        ({"role": "tool", "tool_call_id": "x"}, "missing_required_parameter", "messages[0].content"),
        ({"role": "function", "content": "x"}, "missing_required_parameter", "messages[0].name"),
    ],
)
def test_refusals(message: Any, reason: str, param: str) -> None:
    assert refusal(messages=[message])[:2] == (reason, param)
    second = param.replace("[0]", "[1]", 1)
    assert refusal(messages=[*HELLO, message])[:2] == (reason, second)
