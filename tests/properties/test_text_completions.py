"""Legacy completions: whatever is sent is a request or refused, and what was generated is what the client gets."""

import json
import math
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelplane.chat_inference.v1.chat_inference_pb2 import Delta, TokenLogprob
from modelplane.usage.v1.usage_pb2 import Usage
from services.faults import InvalidRequest
from services.gateway.completions import Identity
from services.gateway.requests.text import BUILT, NO_EFFECT, TextRequest, parse_text
from services.gateway.texts import TextChunks, Tokens, text_object
from tests.properties.test_chat_requests import json_values
from tests.properties.test_sse import chunks, pieces, texts
from tests.services.gateway.schemas import assert_matches

IDENTITY = Identity("cmpl-1", 5, "m", "fp_1")

ids = st.integers(-1, 2**31)
prompts = st.text() | st.lists(st.text() | ids | st.lists(ids, max_size=3), max_size=3) | json_values
fields = st.sampled_from(sorted({*BUILT, *NO_EFFECT, "surprise"} - {"model", "prompt"}))
bodies = st.builds(
    lambda base, more: {**base, **more},
    st.fixed_dictionaries({"model": st.text(), "prompt": prompts}),
    st.dictionaries(fields, json_values | st.booleans() | st.integers(-1, 130), max_size=3),
)


@given(bodies)
def test_any_fields(body: dict[str, Any]) -> None:
    try:
        request = parse_text(json.dumps(body).encode())
    except InvalidRequest as fault:
        assert fault.rule.status == 400
        assert fault.param is None or fault.param.split("[")[0].split(".")[0] in {*body, "best_of"}
        return
    assert 1 <= len(request.prompt) <= 128
    for prompt in request.prompt:
        assert isinstance(prompt, str) or (prompt and all(0 <= token < 2**31 for token in prompt))
    assert 1 <= request.n <= request.best_of <= 128
    assert request.max_tokens > 0 or request.echo
    assert request.best_of == request.n or not request.stream


@given(pieces=pieces, include_usage=st.booleans(), obfuscated=st.booleans(), split=st.integers(0, 20))
def test_chunks_carry_exactly_the_text(
    pieces: list[tuple[int, str]], include_usage: bool, obfuscated: bool, split: int
) -> None:
    deltas = [Delta(index=index, text=text, tokens=1) for index, text in pieces]
    request = TextRequest(model="m", n=4, include_usage=include_usage, include_obfuscation=obfuscated)
    writer = TextChunks(IDENTITY, request)
    seen = ["", "", "", ""]
    for chunk in chunks(writer.of(deltas[:split]) + writer.of(deltas[split:])):
        assert ("usage" in chunk, "obfuscation" in chunk) == (include_usage, obfuscated)
        (choice,) = chunk["choices"]
        if obfuscated:
            said = json.dumps(choice, ensure_ascii=False, separators=(",", ":"))
            assert (len(said.encode()) + len(chunk["obfuscation"])) % 32 == 0
        seen[choice["index"]] += choice["text"]
    assert seen == ["".join(text for at, text in pieces if at == index) for index in range(4)]


@given(pieces=pieces)
def test_an_answer_carries_exactly_the_text(pieces: list[tuple[int, str]]) -> None:
    deltas = [Delta(index=index, text=text, tokens=1) for index, text in pieces]
    answer = text_object(IDENTITY, TextRequest(model="m", prompt=("a", "b"), n=2, best_of=2), deltas, Usage())
    assert_matches("CreateCompletionResponse", answer)
    assert [choice["text"] for choice in answer["choices"]] == [
        "".join(text for at, text in pieces if at == index) for index in range(4)
    ]


@given(text=texts, cuts=st.lists(st.integers(0, 200)), split=st.integers(0, 20))
def test_offsets_say_where_a_token_begins(text: str, cuts: list[int], split: int) -> None:
    raw = text.encode()
    bounds = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    parts = [raw[start:end] for start, end in pairwise(bounds)]
    logprobs = [TokenLogprob(raw=part, logprob=-1) for part in parts]
    tokens = Tokens()
    first, second = tokens.fields(logprobs[:split]), tokens.fields(logprobs[split:])
    offsets = first["text_offset"] + second["text_offset"]
    assert offsets == [len(raw[:start].decode(errors="ignore")) for start in bounds[: len(parts)]]


@given(st.lists(st.lists(st.floats(-20, 0), max_size=4), min_size=2, max_size=6), st.integers(1, 5))
def test_the_best_have_the_best_means(candidates: list[list[float]], n: int) -> None:
    n = min(n, len(candidates) - 1)
    deltas: list[Delta] = []
    for index, values in enumerate(candidates):
        prompt = [TokenLogprob(logprob=value) for value in (math.nan, -50)]
        deltas.append(Delta(index=index, logprobs=prompt))
        deltas += [Delta(index=index, tokens=1, text=f"{index};", logprobs=[TokenLogprob(logprob=it)]) for it in values]
    request = TextRequest(model="m", n=n, best_of=len(candidates), echo=True)
    answer = text_object(IDENTITY, request, deltas, Usage())
    means = [sum(values) / len(values) if values else -math.inf for values in candidates]
    said = [";".join([str(index)] * len(values)) for index, values in enumerate(candidates)]
    given_means = [
        means[said.index(choice["text"].removesuffix(";"))] if choice["text"] else -math.inf
        for choice in answer["choices"]
    ]
    assert given_means == sorted(means, reverse=True)[:n]
