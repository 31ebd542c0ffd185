"""Whatever is sent, a body is either a request or refused in OpenAI's words; nothing else leaves the parser."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.faults import InvalidRequest
from services.gateway.requests import BUILT, NO_EFFECT, NOT_BUILT, parse_chat

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant", "developer", "tool", "x"]) | json_values,
            "content": st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": json_values})),
            "name": json_values,
        },
    ),
    max_size=3,
)
fields = st.sampled_from(sorted({*BUILT, *NO_EFFECT, *NOT_BUILT, "surprise"}))
bodies = st.builds(
    lambda base, extra: {**base, **extra},
    st.fixed_dictionaries({"model": st.text(), "messages": messages}),
    st.dictionaries(fields, json_values | st.integers(-3, 200) | st.floats(-1, 3), max_size=4),
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
    chat.sampling(16).SerializeToString()
