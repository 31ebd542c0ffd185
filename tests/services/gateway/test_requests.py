"""What a body may say, and in which words it is refused."""

import json
from typing import Any

import pytest

from services.faults import Fault
from services.gateway.requests import BUILT, NO_EFFECT, NOT_BUILT, parse_chat

HELLO = [{"role": "user", "content": "hello"}]
BODY = {"model": "m", "messages": HELLO}


def refusal(**fields: Any) -> tuple[str, str | None, str]:
    with pytest.raises(Fault) as raised:
        parse_chat(json.dumps({**BODY, **fields}).encode())
    return raised.value.reason, raised.value.param, raised.value.message


def test_a_bare_request() -> None:
    chat = parse_chat(json.dumps(BODY).encode())
    assert (chat.model, chat.n, chat.stream, chat.include_usage, chat.stop) == ("m", 1, False, False, ())
    assert (chat.max_output_tokens, chat.temperature, chat.top_p, chat.seed) == (None,) * 4
    assert [(message.role, message.content) for message in chat.messages] == [("user", "hello")]


def test_null_counts_as_absent() -> None:
    nulls = dict.fromkeys((set(BUILT) | set(NO_EFFECT) | NOT_BUILT) - set(BODY))
    assert parse_chat(json.dumps({**BODY, **nulls}).encode()) == parse_chat(json.dumps(BODY).encode())


@pytest.mark.parametrize(
    ("fields", "reason", "param", "message"),
    [
        ({"model": None}, "missing_required_parameter", "model", "Missing required parameter: 'model'."),
        ({"model": ""}, "missing_required_parameter", "model", "Missing required parameter: 'model'."),
        ({"messages": None}, "missing_required_parameter", "messages", "Missing required parameter: 'messages'."),
        (
            {"messages": []},
            "empty_array",
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        ),
        (
            {"temperature": "hot"},
            "invalid_type",
            "temperature",
            "Invalid type for 'temperature': expected a decimal, but got a string instead.",
        ),
        (
            {"temperature": 3},
            "decimal_above_max_value",
            "temperature",
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3.0 instead.",
        ),
        (
            {"top_p": -0.1},
            "decimal_below_min_value",
            "top_p",
            "Invalid 'top_p': decimal below minimum value. Expected a value >= 0, but got -0.1 instead.",
        ),
        (
            {"n": 129},
            "integer_above_max_value",
            "n",
            "Invalid 'n': integer above maximum value. Expected a value <= 128, but got 129 instead.",
        ),
        (
            {"n": 1.5},
            "invalid_type",
            "n",
            "Invalid type for 'n': expected an integer, but got a decimal instead.",
        ),
        (
            {"stop": list("abcde")},
            "array_above_max_length",
            "stop",
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            "but got an array with length 5 instead.",
        ),
        ({"surprise": 1}, "unknown_parameter", "surprise", "Unrecognized request argument supplied: surprise"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            "invalid_value",
            "messages[0].role",
            "Invalid value: 'wizard'. Supported values are: 'system', 'developer', 'user', 'assistant'.",
        ),
    ],
)
def test_words(fields: dict[str, Any], reason: str, param: str, message: str) -> None:
    assert refusal(**fields) == (reason, param, message)


@pytest.mark.parametrize(
    ("fields", "reason", "param"),
    [
        ({"n": True}, "invalid_type", "n"),
        ({"n": 0}, "integer_below_min_value", "n"),
        ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
        ({"max_completion_tokens": 2**40}, "integer_above_max_value", "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "invalid_value", "max_tokens"),
        ({"seed": 2**63}, "integer_above_max_value", "seed"),
        ({"seed": 1.0}, "invalid_type", "seed"),
        ({"temperature": 10**400}, "decimal_above_max_value", "temperature"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stop": 5}, "invalid_type", "stop"),
        ({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"model": 5}, "invalid_type", "model"),
        ({"messages": "hi"}, "invalid_type", "messages"),
        ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
        ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
        ({"messages": [{"role": 5, "content": "x"}]}, "invalid_type", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "empty_array", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unsupported_parameter", "messages[0].role"),
        ({"messages": [*HELLO, {**HELLO[0], "name": 5}]}, "invalid_type", "messages[1].name"),
        ({"messages": [{**HELLO[0], "tool_calls": [{}]}]}, "unsupported_parameter", "messages[0].tool_calls"),
        ({"messages": [{**HELLO[0], "mood": 1}]}, "unknown_parameter", "messages[0].mood"),
        ({"stream_options": {}}, "invalid_value", "stream_options"),
        ({"stream": True, "stream_options": 1}, "invalid_type", "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "unknown_parameter", "stream_options.x"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "unsupported_parameter",
            "stream_options.include_obfuscation",
        ),
        ({"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
        ({"frequency_penalty": 0.5}, "unsupported_parameter", "frequency_penalty"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"service_tier": "priority"}, "unsupported_parameter", "service_tier"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"tool_choice": {"type": "function"}}, "unsupported_parameter", "tool_choice"),
        *(({name: "anything"}, "unsupported_parameter", name) for name in sorted(NOT_BUILT)),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str, param: str) -> None:
    assert refusal(**fields)[:2] == (reason, param)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "refusal"])
def test_parts_that_are_not_text(kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": kind}]}]
    assert refusal(messages=messages)[:2] == ("unsupported_parameter", "messages[0].content[1].type")


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff", b"[" * 100_000, b'{"model": NaN}'])
def test_not_json(body: bytes) -> None:
    with pytest.raises(Fault) as raised:
        parse_chat(body)
    assert raised.value.reason == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"5", b"null", b'"text"'])
def test_not_an_object(body: bytes) -> None:
    with pytest.raises(Fault) as raised:
        parse_chat(body)
    assert raised.value.reason == "invalid_type"


def test_values_without_effect_are_accepted() -> None:
    parse_chat(
        json.dumps(
            {
                **BODY,
                "user": "u-1",
                "safety_identifier": "s-1",
                "frequency_penalty": 0,
                "presence_penalty": 0.0,
                "logit_bias": {},
                "logprobs": False,
                "top_logprobs": 0,
                "store": False,
                "metadata": {},
                "modalities": ["text"],
                "response_format": {"type": "text"},
                "service_tier": "auto",
                "tool_choice": "none",
                "parallel_tool_calls": True,
            }
        ).encode()
    )


def test_an_answer_can_be_sent_back() -> None:
    answer: dict[str, Any] = {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None}
    answer["annotations"] = []
    assert len(parse_chat(json.dumps({"model": "m", "messages": [*HELLO, answer]}).encode()).messages) == 2


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat = parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode())
    assert chat.messages[0].content == "one\ntwo"


def test_every_field_stands_in_one_table() -> None:
    assert not set(BUILT) & set(NO_EFFECT)
    assert not (set(BUILT) | set(NO_EFFECT)) & NOT_BUILT
