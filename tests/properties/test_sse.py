"""Chunks are spliced from bytes: whatever the text, each must be the JSON that an encoder would have written."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelplane.chat_inference.v1.chat_inference_pb2 import FINISH_REASON_LENGTH, Delta
from modelplane.usage.v1.usage_pb2 import Usage
from services.gateway.completions import Identity, completion_object
from services.gateway.requests.chat import ChatRequest
from services.gateway.sse import Chunks
from tests.services.gateway.schemas import assert_matches

# What protobuf can carry: everything but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
pieces = st.lists(st.tuples(st.integers(0, 3), texts), min_size=1, max_size=20)


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=[], **fields)


def chunks(data: bytes) -> list[dict[str, Any]]:
    *events, rest = data.split(b"\n\n")
    assert rest == b"" and all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    return [json.loads(event[6:]) for event in events]


@given(model=texts, pieces=pieces, include_usage=st.booleans(), split=st.integers(0, 20))
def test_chunks_carry_exactly_the_text(
    model: str, pieces: list[tuple[int, str]], include_usage: bool, split: int
) -> None:
    deltas = [Delta(index=index, text=text, tokens=1) for index, text in pieces]
    writer = Chunks(Identity("chatcmpl-1", 5, model, "fp_1"), chat(include_usage=include_usage))
    seen: dict[int, str] = {}
    for chunk in chunks(writer.of(deltas[:split]) + writer.of(deltas[split:])):
        assert_matches("CreateChatCompletionStreamResponse", chunk)
        assert chunk["model"] == model and ("usage" in chunk) == include_usage
        (choice,) = chunk["choices"]
        assert (choice["index"] in seen) == ("role" not in choice["delta"])
        seen[choice["index"]] = seen.get(choice["index"], "") + choice["delta"]["content"]
    assert seen == {index: "".join(text for i, text in pieces if i == index) for index, _ in pieces}


@given(pieces=pieces)
def test_a_completion_carries_exactly_the_text(pieces: list[tuple[int, str]]) -> None:
    deltas = [Delta(index=index, text=text, tokens=1) for index, text in pieces]
    deltas.append(Delta(index=1, finish_reason=FINISH_REASON_LENGTH))
    answer = completion_object(Identity("chatcmpl-1", 5, "m", "fp_1"), chat(n=4), deltas, Usage(input_tokens=3))
    assert_matches("CreateChatCompletionResponse", answer)
    for choice in answer["choices"]:
        assert choice["message"]["content"] == "".join(text for i, text in pieces if i == choice["index"])
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length", "stop", "stop"]
