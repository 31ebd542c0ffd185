"""What a legacy completion's body may say, and the words for what it may not."""

import json
from typing import Any

import pytest

from services.faults import InvalidRequest
from services.gateway.requests.text import TextRequest, parse_text


def parsed(**fields: Any) -> TextRequest:
    return parse_text(json.dumps({"model": "m", **fields}).encode())


def test_defaults() -> None:
    assert parsed() == TextRequest(model="m", prompt=("",), max_tokens=16, n=1, best_of=1)
    assert (
        parsed(**dict.fromkeys(("prompt", "max_tokens", "best_of", "logprobs", "echo", "suffix", "stop"))) == parsed()
    )


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("one", ["one"]),
        ("", [""]),
        ("<|endoftext|>", [""]),
        (["one", "", "<|endoftext|>"], ["one", "", ""]),
        ([5, 0, 7], [[5, 0, 7]]),
        ([[5, 0], [7]], [[5, 0], [7]]),
        (["x"] * 128, ["x"] * 128),
    ],
)
def test_prompts(prompt: Any, prompts: list[Any]) -> None:
    assert parsed(prompt=prompt).prompt == prompts


def test_everything() -> None:
    text = parsed(
        prompt="a",
        max_tokens=0,
        echo=True,
        n=2,
        best_of=3,
        logprobs=5,
        stop="x",
        seed=1,
        temperature=2,
        top_p=0.5,
        frequency_penalty=-2,
        presence_penalty=2,
        logit_bias={"7": -100},
        user="u",
        suffix="",
    )
    assert (text.max_tokens, text.n, text.best_of, text.logprobs, text.stop) == (0, 2, 3, 5, ("x",))
    assert (text.temperature, text.top_p, text.frequency_penalty, text.presence_penalty) == (2, 0.5, -2, 2)
    assert (text.seed, text.logit_bias) == (1, {7: -100})
    streamed = parsed(stream=True, n=2, best_of=2, stream_options={"include_usage": True, "include_obfuscation": False})
    assert (streamed.stream, streamed.include_usage, streamed.include_obfuscation) == (True, True, False)


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"prompt": []}, "prompt", "empty_array"),
        ({"prompt": [[]]}, "prompt[0]", "empty_array"),
        ({"prompt": {}}, "prompt", "invalid_type"),
        ({"prompt": [True]}, "prompt", "invalid_type"),
        ({"prompt": ["a", 5]}, "prompt[1]", "invalid_type"),
        ({"prompt": [5, "a"]}, "prompt[1]", "invalid_type"),
        ({"prompt": [5, True]}, "prompt[1]", "invalid_type"),
        ({"prompt": [[5], [6, 0.5]]}, "prompt[1][1]", "invalid_type"),
        ({"prompt": [5, -1]}, "prompt[1]", "integer_below_min_value"),
        ({"prompt": [5, 2**31]}, "prompt[1]", "integer_above_max_value"),
        ({"prompt": ["x"] * 129}, "prompt", "array_above_max_length"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": -1, "echo": True}, "max_tokens", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"best_of": 21}, "best_of", "integer_above_max_value"),
        ({"n": 3, "best_of": 2}, "best_of", "invalid_parameter"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_parameter"),
        ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"user": 5}, "user", "invalid_type"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**{"prompt": "a", **fields})
    assert (refused.value.param, refused.value.reason) == (param, reason)
