"""What the fields of a body may say, and in which words they are refused."""

import json
from typing import Any

import pytest

from services.faults import Fault
from services.gateway.requests.chat import BUILT, NO_EFFECT, NOT_BUILT, ChatRequest, parse_chat
from services.gateway.requests.values import INT31

HELLO = [{"role": "user", "content": "hello"}]
BODY = {"model": "m", "messages": HELLO}
BARE = b'{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'


def parsed(**fields: Any) -> ChatRequest:
    return parse_chat(json.dumps({**BODY, **fields}).encode())


def refusal(**fields: Any) -> tuple[str, str | None, str]:
    with pytest.raises(Fault) as raised:
        parsed(**fields)
    assert raised.value.rule.status == 400 and raised.value.rule.type == "invalid_request_error"
    return raised.value.reason, raised.value.param, raised.value.message


def test_a_bare_request() -> None:
    chat = parse_chat(BARE)
    assert (chat.model, chat.n, chat.stream, chat.include_usage, chat.stop) == ("m", 1, False, False, ())
    assert (chat.max_output_tokens, chat.temperature, chat.top_p, chat.seed) == (None,) * 4
    assert [(message.role, message.content) for message in chat.messages] == [("user", "hello")]
    assert (chat.service_tier, chat.store, chat.include_obfuscation) == ("auto", False, True)
    assert (chat.tools, chat.tool_choice.mode, chat.response_format.kind) == ((), "none", "text")


def test_null_counts_as_absent() -> None:
    nulls = dict.fromkeys((set(BUILT) | set(NO_EFFECT) | NOT_BUILT) - set(BODY))
    assert parsed(**nulls) == parse_chat(BARE)


def test_every_field_stands_in_one_table() -> None:
    assert not set(BUILT) & set(NO_EFFECT)
    assert not (set(BUILT) | set(NO_EFFECT)) & NOT_BUILT


def test_what_is_asked_of_the_engine() -> None:
    chat = parsed(
        temperature=0.5,
        top_p=1,
        stop="x",
        seed=-5,
        n=2,
        max_tokens=9,
        frequency_penalty=-2,
        presence_penalty=1.5,
        logit_bias={"0": -100, "50256": 0.5},
        logprobs=True,
    )
    assert chat.max_output_tokens == 9
    sampling = chat.sampling(7)
    assert (sampling.temperature, sampling.top_p, list(sampling.stop), sampling.seed) == (0.5, 1.0, ["x"], -5)
    assert (sampling.n, sampling.max_output_tokens) == (2, 7)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (-2.0, 1.5)
    assert dict(sampling.logit_bias) == {0: -100.0, 50256: 0.5}
    assert sampling.HasField("top_logprobs") and sampling.top_logprobs == 0
    assert parsed(logprobs=True, top_logprobs=20).sampling(1).top_logprobs == 20


def test_what_was_not_said_is_not_asked_of_the_engine() -> None:
    sampling = parsed(logprobs=False, top_logprobs=0).sampling(16)
    assert [field.name for field, _ in sampling.ListFields()] == ["n", "max_output_tokens"]


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
            {"metadata": {str(number): "x" for number in range(17)}},
            "object_above_max_properties",
            "metadata",
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 17 properties instead.",
        ),
        (
            {"safety_identifier": "x" * 65},
            "string_above_max_length",
            "safety_identifier",
            "Invalid 'safety_identifier': string too long. Expected a string with maximum length 64, "
            "but got a string with length 65 instead.",
        ),
        (
            {"logit_bias": {"hello": 1}},
            "invalid_parameter",
            "logit_bias",
            "Invalid key in 'logit_bias': hello. You should only be submitting non-negative integers.",
        ),
        (
            {"reasoning_effort": "extreme"},
            "invalid_value",
            "reasoning_effort",
            "Invalid value: 'extreme'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', 'xhigh', "
            "and 'max'.",
        ),
        (
            {"verbosity": "low"},
            "unsupported_value",
            "verbosity",
            "Unsupported value: 'verbosity' does not support 'low' yet. Supported values are: 'medium'.",
        ),
        (
            {"service_tier": "scale"},
            "unsupported_value",
            "service_tier",
            "Unsupported value: 'service_tier' is 'scale', but this project has no Scale Tier contract for the model.",
        ),
        (
            {"stream_options": {}},
            "invalid_value",
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
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
        ({"frequency_penalty": 2.1}, "decimal_above_max_value", "frequency_penalty"),
        ({"presence_penalty": -2.1}, "decimal_below_min_value", "presence_penalty"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stop": 5}, "invalid_type", "stop"),
        ({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"model": 5}, "invalid_type", "model"),
        ({"stream": True, "stream_options": 1}, "invalid_type", "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "unknown_parameter", "stream_options.x"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
        ({"logit_bias": []}, "invalid_type", "logit_bias"),
        ({"logit_bias": {"5": 101}}, "decimal_above_max_value", "logit_bias.5"),
        ({"logit_bias": {"5": None}}, "invalid_type", "logit_bias.5"),
        ({"logit_bias": {str(token): 0 for token in range(1025)}}, "object_above_max_properties", "logit_bias"),
        *(
            ({"logit_bias": {key: 1}}, "invalid_parameter", "logit_bias")
            for key in ("-1", "", "01", "1.0", "²", "٣", "1_0", str(INT31 + 1), "9" * 5000)
        ),
        ({"logprobs": 1}, "invalid_type", "logprobs"),
        ({"top_logprobs": 5}, "invalid_parameter", "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 1}, "invalid_parameter", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
        ({"store": "yes"}, "invalid_type", "store"),
        ({"metadata": {"k": 5}}, "invalid_type", "metadata.k"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "string_above_max_length", "metadata"),
        ({"user": 5}, "invalid_type", "user"),
        ({"prompt_cache_key": 5}, "invalid_type", "prompt_cache_key"),
        ({"prompt_cache_options": {"mode": "never"}}, "invalid_value", "prompt_cache_options.mode"),
        ({"prompt_cache_options": {"ttl": "1h"}}, "invalid_value", "prompt_cache_options.ttl"),
        ({"prompt_cache_options": {"x": 1}}, "unknown_parameter", "prompt_cache_options.x"),
        ({"prompt_cache_retention": "1h"}, "invalid_value", "prompt_cache_retention"),
        ({"service_tier": "ultrafast"}, "invalid_value", "service_tier"),
        ({"reasoning_effort": 5}, "invalid_type", "reasoning_effort"),
        ({"verbosity": "loud"}, "invalid_value", "verbosity"),
        ({"modalities": []}, "empty_array", "modalities"),
        ({"modalities": ["text", "audio"]}, "unsupported_value", "modalities"),
        ({"modalities": ["smell"]}, "invalid_value", "modalities[0]"),
        *(({name: "anything"}, "unsupported_parameter", name) for name in sorted(NOT_BUILT)),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str, param: str) -> None:
    assert refusal(**fields)[:2] == (reason, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff", b"[" * 100_000, b'{"model": NaN}', b'{"n": 1e999}'])
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
    chat = parsed(
        modalities=["text"],
        verbosity="medium",
        prompt_cache_options={"mode": "explicit", "ttl": "30m"},
        prompt_cache_retention="24h",
        response_format={"type": "text"},
        logit_bias={},
        metadata={},
    )
    assert chat == parse_chat(BARE)


def test_who_asks_and_what_for() -> None:
    pairs = {f"{number:064}": "v" * 512 for number in range(16)}
    chat = parsed(store=True, metadata=pairs, user="u", safety_identifier="s" * 64, prompt_cache_key="k")
    assert (chat.store, chat.metadata, chat.user) == (True, pairs, "u")
    assert (chat.safety_identifier, chat.prompt_cache_key) == ("s" * 64, "k")


@pytest.mark.parametrize(
    ("said", "meant"),
    [("auto", "auto"), ("default", "default"), ("flex", "flex"), ("priority", "priority"), ("fast", "priority")],
)
def test_service_tiers(said: str, meant: str) -> None:
    assert parsed(service_tier=said).service_tier == meant


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_reasoning_efforts(effort: str) -> None:
    assert parsed(reasoning_effort=effort).reasoning_effort == effort


def test_stream_options() -> None:
    chat = parsed(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert (chat.include_usage, chat.include_obfuscation) == (True, False)
    chat = parsed(stream=True, stream_options={"include_usage": None})
    assert (chat.include_usage, chat.include_obfuscation) == (False, True)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "field",
    sorted({*BUILT, *NO_EFFECT} | {"messages[0]", "messages[0].role", "messages[0].content[0].type", "tools[0]"}),
)
def test_no_fault_walks_a_deep_value(field: str) -> None:
    deep = nested(900)
    fields = {
        "messages[0]": {"messages": [deep]},
        "messages[0].role": {"messages": [{"role": deep}]},
        "messages[0].content[0].type": {"messages": [{"role": "user", "content": [{"type": deep}]}]},
        "tools[0]": {"tools": [{"type": deep, "function": {"name": deep, "parameters": {"type": deep}}}]},
    }.get(field, {field: deep})
    assert refusal(**fields)[1]
