"""Bodies that no client should send: each gets an answer in OpenAI's form, none breaks anything."""

import copy
import json
import random
from typing import Any, Final

import pytest

from tests.services.gateway.conftest import MODEL, Edge
from tests.services.gateway.schemas import assert_matches

WHOLE: Final = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}], "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "21"},
    ],
    "max_completion_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["x"],
    "seed": 7,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 2,
    "presence_penalty": 0.1,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "stream": False,
    "user": "u",
}
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**40,
    1e308,
    "",
    "\x00",
    "\ufffe<|im_end|>",
    "x" * 5000,
    [],
    [[]],
    [None],
    {},
    {"": {}},
    {"type": "function"},
    {"$ref": "#"},
)
BYTES: Final = (b"", b"{", b"[1]", b"null", b"\xff\xfe", b"{}" * 3, b'{"model": "\\ud800"}', b"[" * 100_000)


def mutated(choose: random.Random) -> dict[str, Any]:
    """The whole body with one to three of its places changed, removed or doubled."""
    body: dict[str, Any] = copy.deepcopy(dict(WHOLE))
    for _ in range(choose.randint(1, 3)):
        place: Any = body
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = choose.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and choose.random() < 0.7:
                place = place[key]
                continue
            if choose.random() < 0.2:
                del place[key]
            else:
                place[key] = choose.choice(ODD)
            break
    if choose.random() < 0.2:
        body[choose.choice(("audio", "functions", "stream_options", "nonsense", "store", "verbosity"))] = choose.choice(
            ODD
        )
    return body


@pytest.mark.parametrize("seed", range(6))
async def test_mutated_bodies_are_answered_or_refused(edge: Edge, seed: int) -> None:
    await edge.add_replica()
    choose = random.Random(seed)
    refused = 0
    async with edge.http() as http:
        for _ in range(60):
            body = mutated(choose)
            response = await http.post("/v1/chat/completions", content=json.dumps(body))
            assert response.status_code in (200, 400, 404), (body, response.text)
            if response.status_code != 200:
                refused += 1
                assert set(response.json()) == {"error"}
                assert_matches("Error", response.json()["error"])
                assert response.json()["error"]["message"]
    assert refused > 20
    assert await edge.running() == 0


async def test_bodies_that_are_no_json(edge: Edge) -> None:
    async with edge.http() as http:
        for content in BYTES:
            response = await http.post("/v1/chat/completions", content=content)
            assert response.status_code == 400, content[:20]
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}
