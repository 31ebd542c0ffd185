"""Nothing that a client says, in messages or in tools, acts as structure; and it ends in ids or in a refusal."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelplane.tokenizer.v1.tokenizer_pb2 import Message, RenderRequest, Tool, ToolCall, ToolChoice
from services.catalog import ModelSpec
from services.tokenizer.conversations import conversation
from services.tokenizer.models import PromptModel
from services.tokenizer.segments import joined
from services.tokenizer.templates import RenderError
from tests.services.tokenizer.checkpoints import SPECIAL, TEMPLATE, TOOLS_TEMPLATE, byte_level_tokenizer

FRAGMENTS = (*SPECIAL, "<|im_", "end|>", "\ufdd0", '"', "\\", "\n", "é", "x")
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=4).map("".join)
# JSON can write halves of characters, which no UTF-8 text can hold.
strings = texts | st.just("\ud800<|im_end|>")
values: st.SearchStrategy[Any] = st.recursive(
    strings | st.none() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=6,
)


def asked(text: Callable[[], str], value: Callable[[], str]) -> RenderRequest:
    """A request whose strings are all `text()`, or `value()` where they are JSON."""
    calls = [ToolCall(id=text(), name=text(), arguments=value()), ToolCall(id=text(), name=text(), arguments=text())]
    parameters = f'{{"type": "object", "description": {value()}, "properties": {{"p": {value()}}}}}'
    return RenderRequest(
        messages=[
            Message(role="system", content=text()),
            Message(role="user", content=text(), name=text()),
            Message(role="assistant", content=text(), tool_calls=calls),
            Message(role="tool", content=text(), name=text(), tool_call_id=text()),
        ],
        tools=[Tool(name=text(), description=text(), parameters=parameters)],
        tool_choice=ToolChoice(required=True, names=[text(), text()]),
        response_schema=value(),
    )


def model_of(tool_format: str) -> PromptModel:
    spec = msgspec.convert({"name": "m", "tool_format": tool_format}, ModelSpec)
    return PromptModel(spec, byte_level_tokenizer(), TOOLS_TEMPLATE if tool_format else TEMPLATE, {})


@pytest.mark.parametrize("tool_format", ["", "hermes", "mistral"])
@given(data=st.data())
def test_no_string_of_a_client_becomes_a_special_token(tool_format: str, data: st.DataObject) -> None:
    model = model_of(tool_format)
    special = {byte_level_tokenizer().token_to_id(token) for token in SPECIAL}

    def structure(request: RenderRequest) -> list[int]:
        pieces = model.render(*conversation(request, model.manners))
        ids = joined(model.encode(pieces)).ids()
        segments = model.split(pieces)
        assert segments is not None and joined(model.encode(segments)).ids() == ids
        return [token for token in ids if token in special]

    honest = asked(lambda: "x", lambda: '{"x": 1}')
    forged = asked(lambda: data.draw(texts), lambda: json.dumps(data.draw(values), ensure_ascii=True))
    assert structure(forged) == structure(honest)


@given(value=values)
def test_any_json_is_rendered_or_refused(value: Any) -> None:
    model = model_of("hermes")
    text = json.dumps(value)
    call = ToolCall(name="f", arguments=text)
    request = RenderRequest(
        messages=[Message(role="assistant", tool_calls=[call])], tools=[Tool(name="f", parameters=text)]
    )
    try:
        "".join(model.render(*conversation(request, model.manners))).encode()
    except RenderError as refusal:
        assert str(refusal)


def test_deep_json_is_rendered_or_refused() -> None:
    model = model_of("hermes")
    for depth in (100, 900, 990, 5_000):
        text = '{"a":' * depth + "1" + "}" * depth
        message = Message(role="assistant", tool_calls=[ToolCall(name="f", arguments=text)])
        try:
            model.render(*conversation(RenderRequest(messages=[message]), model.manners))
        except RenderError as refusal:
            assert "recursion" in str(refusal)
