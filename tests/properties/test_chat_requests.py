"""Whatever is sent, a body is either a request or refused in OpenAI's words; nothing else leaves the parser."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.faults import InvalidRequest
from services.gateway.requests.chat import BUILT, NO_EFFECT, NOT_BUILT, parse_chat

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))


def some(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of these members, now and then one of another kind."""
    return st.fixed_dictionaries({}, optional={name: value | json_values for name, value in members.items()})


def lists(of: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(of, max_size=3)


names = st.sampled_from(["f", "g", "a b"])
named = some(name=names)
schemas = some(type=st.sampled_from(["object", "string"]), additionalProperties=st.just(False), properties=json_values)
calls = some(id=names, type=st.just("function"), function=some(name=names, arguments=st.text()))
parts = some(
    type=st.sampled_from(["text", "refusal", "image_url"]),
    text=st.text(),
    refusal=st.text(),
    image_url=some(url=st.text(), detail=st.sampled_from(["auto", "low", "high"])),
)
messages = lists(
    some(
        role=st.sampled_from(["user", "system", "assistant", "developer", "tool", "function"]),
        content=st.text() | lists(parts),
        name=names,
        refusal=st.text(),
        tool_calls=lists(calls),
        tool_call_id=names,
        function_call=some(name=names, arguments=st.text()),
    )
)
functions = some(name=names, description=st.text(), parameters=schemas, strict=st.booleans())
chosen = some(type=st.just("function"), function=named)
likely = {
    "stream": st.booleans(),
    "stream_options": some(include_usage=st.booleans()),
    "logit_bias": st.dictionaries(st.integers(-1, 9).map(str), st.integers(-101, 101)),
    "top_logprobs": st.integers(-1, 21),
    "logprobs": st.booleans(),
    "metadata": st.dictionaries(st.text(), st.text()),
    "tools": lists(some(type=st.just("function"), function=functions)),
    "tool_choice": names | chosen | some(type=st.just("allowed_tools"), allowed_tools=some(tools=lists(chosen))),
    "functions": lists(functions),
    "function_call": names | named,
    "response_format": some(
        type=st.sampled_from(["text", "json_object", "json_schema"]),
        json_schema=some(name=names, schema=schemas, strict=st.booleans()),
    ),
}
fields = st.sampled_from(sorted({*BUILT, *NO_EFFECT, *NOT_BUILT, "surprise"} - {"model", "messages"}))
bodies = st.builds(
    lambda base, extra, more: {**base, **extra, **more},
    st.fixed_dictionaries({"model": st.text(), "messages": messages}),
    st.dictionaries(fields, json_values | st.integers(-3, 200) | st.floats(-1, 3), max_size=2),
    st.fixed_dictionaries({}, optional=likely),
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(body: bytes) -> None:
    try:
        parse_chat(body)
    except InvalidRequest as fault:
        assert fault.rule.status == 400 and fault.message


@given(bodies)
def test_any_fields(body: dict[str, Any]) -> None:
    try:
        chat = parse_chat(json.dumps(body).encode())
    except InvalidRequest as fault:
        assert fault.rule.status == 400
        assert fault.param is None or fault.param.split("[")[0].split(".")[0] in body
        return
    assert chat.model == body["model"] and len(chat.messages) == len(body["messages"]) > 0
    assert 1 <= chat.n <= 128 and len(chat.stop) <= 4 and all(chat.stop)
    assert chat.temperature is None or 0 <= chat.temperature <= 2
    assert chat.top_p is None or 0 <= chat.top_p <= 1
    assert chat.max_output_tokens is None or chat.max_output_tokens >= 1
    assert chat.tools or (chat.tool_choice.mode, chat.tool_choice.names) == ("none", ())
    assert set(chat.tool_choice.names) <= {tool.name for tool in chat.tools}
    chat.sampling(16).SerializeToString()
    msgspec.json.encode([chat.tools, chat.response_format, chat.metadata])


turns = st.lists(
    st.one_of(
        st.text(min_size=1).map(lambda text: [{"role": "user", "content": text}]),
        st.lists(st.uuids().map(str), min_size=1, max_size=3, unique=True).flatmap(
            lambda ids: st.permutations(ids).map(lambda answered: [_calling(ids), *map(_answer, answered)])
        ),
    ),
    min_size=1,
    max_size=4,
)


def _calling(ids: list[str]) -> dict[str, Any]:
    function = {"name": "f", "arguments": "{}"}
    return {"role": "assistant", "tool_calls": [{"id": one, "type": "function", "function": function} for one in ids]}


def _answer(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "x"}


@given(turns, st.data())
def test_every_call_has_its_answer(turns: list[list[dict[str, Any]]], data: st.DataObject) -> None:
    conversation = [message for turn in turns for message in turn]
    chat = parse_chat(json.dumps({"model": "m", "messages": conversation}).encode())
    assert [message.role for message in chat.messages] == [message["role"] for message in conversation]

    answers = [index for index, message in enumerate(conversation) if message["role"] == "tool"]
    if answers:
        del conversation[data.draw(st.sampled_from(answers))]
        with pytest.raises(InvalidRequest, match="did not have response messages"):
            parse_chat(json.dumps({"model": "m", "messages": conversation}).encode())
