"""Takes the thinking out of an answer, piece by piece. Pure.

A model that thinks does so before it answers, between two marks. Kept true: no part of the thinking or of its marks
is sent; their tokens are counted, once and as soon as they are known to be thinking; every token reaches the peer's
count with the piece that it came with, whatever becomes of its text; text in which the first mark turns up later is
an answer that quotes it.
"""

from collections import defaultdict
from enum import Enum

from modelplane.chat_inference.v1.chat_inference_pb2 import Thinking, TokenLogprob
from services.chat_inference.engines.engine import Piece


class _Place(Enum):
    START = 0
    """Nothing but white space until now, or a part of the first mark."""
    INSIDE = 1
    ENDED = 2
    """After the last mark, before the answer: the line breaks there belong to neither."""
    ANSWER = 3


class _Choice:
    """Where one choice is."""

    __slots__ = ("held", "logprobs", "place", "tokens")

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.held = ""
        """Text that may be a part of a mark."""
        self.logprobs: list[TokenLogprob] = []
        """Those of the held text, while it may become a part of the answer."""
        self.tokens = 0
        """Tokens that are not known to be thinking or answer."""


class Splitter:
    """Splits the choices of one request. `reasoning_tokens` are those of all choices until now, marks included."""

    __slots__ = ("_begin", "_choices", "_end", "reasoning_tokens")

    def __init__(self, thinking: Thinking) -> None:
        self._begin = thinking.begin
        self._end = thinking.end
        place = _Place.INSIDE if thinking.open else _Place.START
        self._choices = defaultdict[int, _Choice](lambda: _Choice(place))
        self.reasoning_tokens = 0

    def answer(self, piece: Piece) -> Piece:
        """What of the piece is for the peer: its text and log probabilities without the thinking, its tokens all."""
        choice = self._choices[piece.choice]
        if choice.place is _Place.ANSWER:
            return piece
        text, logprobs = piece.text, piece.logprobs
        if choice.place is _Place.START:
            text, logprobs = self._start(choice, piece)
        elif choice.place is _Place.INSIDE:
            self.reasoning_tokens += piece.tokens
            text, logprobs = self._inside(choice, text), ()
        if choice.place is _Place.ENDED:
            text = text.lstrip("\n")
            if text:
                choice.place = _Place.ANSWER
        return piece._replace(text=text, logprobs=logprobs if text else ())

    def _start(self, choice: _Choice, piece: Piece) -> tuple[str, tuple[TokenLogprob, ...]]:
        text = choice.held + piece.text
        choice.tokens += piece.tokens
        choice.logprobs += piece.logprobs
        begun = text.lstrip()
        if begun.startswith(self._begin):
            self.reasoning_tokens += choice.tokens
            choice.place, choice.held = _Place.INSIDE, ""
            return self._inside(choice, begun[len(self._begin) :]), ()
        if self._begin.startswith(begun) and not piece.finish_reason:
            choice.held = text
            return "", ()
        choice.place = _Place.ANSWER
        return text, tuple(choice.logprobs)

    def _inside(self, choice: _Choice, text: str) -> str:
        """The text behind the last mark, empty while there is none."""
        thought, mark, rest = (choice.held + text).partition(self._end)
        if mark:
            choice.place = _Place.ENDED
            return rest
        choice.held = thought[-len(self._end) + 1 :] if len(self._end) > 1 else ""
        return ""
