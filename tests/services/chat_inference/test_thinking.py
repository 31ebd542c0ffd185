"""Thinking is taken out of an answer, however its text falls into pieces."""

import pytest

from modelplane.chat_inference.v1.chat_inference_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    Thinking,
    TokenLogprob,
)
from services.catalog import ScriptSpec
from services.chat_inference.engines.engine import Piece
from services.chat_inference.engines.scripted import ScriptedEngine
from services.chat_inference.thinking import Splitter
from tests.services.chat_inference.peer import Peer, asked, generated, replica, text


def said(splitter: Splitter, whole: str, size: int, choice: int = 0) -> tuple[str, int]:
    """What is left of a text that comes in pieces of `size` characters, a token each; and the tokens passed on."""
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    parts = []
    for index, piece in enumerate(pieces):
        reason = FINISH_REASON_STOP if index == len(pieces) - 1 else FINISH_REASON_UNSPECIFIED
        logprobs = (TokenLogprob(token=piece),)
        parts.append(splitter.answer(Piece(choice, piece, 1, reason, 0, logprobs)))
    assert parts[-1].finish_reason == FINISH_REASON_STOP
    answer = "".join(part.text for part in parts)
    shown = "".join(logprob.token for part in parts for logprob in part.logprobs)
    assert answer.endswith(shown) or shown.endswith(answer)
    return answer, sum(part.tokens for part in parts)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize(
    ("whole", "is_open", "answer"),
    [
        ("<think>hm hm</think>Hello", False, "Hello"),
        ("\n <think>\nhm < 3 </thin\n</think>\n\nHello\n", False, "Hello\n"),
        ("hm</think>\nHello", True, "Hello"),
        ("<think></think>", False, ""),
        ("<think>never done", False, ""),
        ("Hello <think>quoted</think>", False, "Hello <think>quoted</think>"),
        ("<thin", False, "<thin"),
        ("  no thinking", False, "  no thinking"),
        ("hm</think>a</think>b", True, "a</think>b"),
    ],
)
def test_what_is_left(whole: str, is_open: bool, answer: str, size: int) -> None:
    splitter = Splitter(Thinking(begin="<think>", end="</think>", open=is_open))
    assert said(splitter, whole, size) == (answer, -(-len(whole) // size))


def test_tokens_are_counted_with_the_marks_and_by_choice() -> None:
    splitter = Splitter(Thinking(begin="<think>", end="</think>"))
    said(splitter, "<think>ab</think>cd", 1, choice=0)
    assert splitter.reasoning_tokens == len("<think>ab</think>")
    said(splitter, "no thinking", 1, choice=1)
    assert splitter.reasoning_tokens == len("<think>ab</think>")
    said(splitter, "  <think>a", 1, choice=2)
    assert splitter.reasoning_tokens == len("<think>ab</think>") + len("  <think>a")


@pytest.mark.parametrize("whole", [False, True])
async def test_a_replica_sends_the_answer_and_bills_the_thinking(whole: bool) -> None:
    script = ScriptSpec(text="<think>so so it is</think>\n\nHello you!")
    service = replica(engine=ScriptedEngine(script))
    request = asked("a", n=2)
    request.thinking.CopyFrom(Thinking(begin="<think>", end="</think>"))
    request.whole = whole
    request.sampling.top_logprobs = 1
    cut = asked("b", most=3)
    cut.thinking.CopyFrom(request.thinking)
    async with Peer(service) as peer:
        deltas, short = await peer.run(request), await peer.run(cut)
    usage = deltas[-1].usage
    assert [text(deltas, choice) for choice in range(2)] == ["Hello you!"] * 2
    assert usage.output_tokens == generated(deltas) == 2 * 10
    assert usage.reasoning_tokens == 2 * 7
    assert (text(short), short[-1].usage.reasoning_tokens) == ("", 3)
    assert [delta.finish_reason for delta in short if delta.finish_reason] == [FINISH_REASON_LENGTH]
    await service.close()
