"""What counts as a right answer: nothing that is short, wrong or unfinished may enter a table."""

import json

import pytest

from benchmarks.conversation import TOKENS, WrongAnswer, check


def plain(**changes: object) -> bytes:
    answer: dict[str, object] = {
        "choices": [{"message": {"role": "assistant", "content": "four screws"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS},
    }
    return json.dumps(answer | changes).encode()


def stream(words: int = TOKENS, last: str = "data: [DONE]\n\n", tokens: int = TOKENS) -> bytes:
    deltas: list[dict[str, object]] = [{"delta": {"role": "assistant", "content": ""}}]
    deltas += [{"delta": {"content": "word "}, "finish_reason": None}] * words
    deltas.append({"delta": {}, "finish_reason": "stop"})
    chunks: list[dict[str, object]] = [{"choices": [delta]} for delta in deltas]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + last.encode()


def test_a_right_answer_gives_its_text() -> None:
    assert check(200, plain(), stream=False) == "four screws"
    assert check(200, stream(), stream=True) == "word " * TOKENS


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, plain()),
        (200, b"{"),
        (200, plain(choices=[])),
        (200, plain(usage=None)),
        (200, plain(usage={"prompt_tokens": 9, "completion_tokens": TOKENS - 1})),
        (200, plain(choices=[{"message": {"content": "four"}, "finish_reason": "length"}])),
    ],
)
def test_a_wrong_plain_answer_is_refused(status: int, body: bytes) -> None:
    with pytest.raises(WrongAnswer):
        check(status, body, stream=False)


@pytest.mark.parametrize("body", [stream(words=TOKENS - 1), stream(last=""), stream(tokens=1), b"data: {\n\n"])
def test_a_wrong_stream_is_refused(body: bytes) -> None:
    with pytest.raises(WrongAnswer):
        check(200, body, stream=True)
