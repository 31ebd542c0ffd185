"""Finds which tokens a piece of text is made of, and says how likely each was.

vLLM delivers text and tokens separately: text waits while a character is incomplete or while it may be the beginning
of a stop string. Kept true: a token is reported with the piece that completes its text, so what a peer has of both
always belongs together; its bytes are those of the vocabulary, also for half a character; tokens that a stop string
cut off, even in part, and special tokens that are not shown have no log probability; every token is counted once.
"""

import codecs
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from modelplane.chat_inference.v1.chat_inference_pb2 import TokenLogprob

# OpenAI's word for "out of the question"; JSON has no minus infinity.
_LEAST_LOGPROB = -9999.0


class Vocabulary(NamedTuple):
    """The bytes of every token, by its id, and the ids of those that are not shown."""

    raw: Sequence[bytes]
    hidden: frozenset[int]

    def logprob(self, token: int, measured: float, alternatives: Iterable[tuple[int, float]] = ()) -> TokenLogprob:
        raw = self.raw[token] if token < len(self.raw) else b""
        return TokenLogprob(
            token=raw.decode(errors="replace"),
            raw=raw,
            logprob=measured if math.isnan(measured) else max(measured, _LEAST_LOGPROB),
            top=[self.logprob(other, value) for other, value in alternatives],
        )

    def place(self, token: int, measures: Mapping[int, Any], top: int) -> TokenLogprob:
        """One place of vLLM's: the token that is there, with the likeliest ones, `top` of them."""
        ranked = sorted(measures.items(), key=lambda item: -item[1].logprob)[:top]
        return self.logprob(token, measures[token].logprob, ((other, it.logprob) for other, it in ranked))


class Part(NamedTuple):
    """Text and the tokens that end in it."""

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...]


class _Token(NamedTuple):
    end: int
    """Characters of the choice up to its end."""
    whole: bool
    """False when it ends within a character."""
    logprob: TokenLogprob | None


class Aligner:
    """One choice's text and tokens. `top`: alternatives to report; None reports no log probabilities at all."""

    def __init__(self, vocabulary: Vocabulary, top: int | None) -> None:
        self._vocabulary = vocabulary
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = 0
        self._tokens = deque[_Token]()
        self._text = ""
        self._reported = 0

    def add(self, text: str, token_ids: Sequence[int], measures: Sequence[Mapping[int, Any]] | None) -> Iterator[Part]:
        """The parts that are complete with what vLLM delivered now."""
        self._text += text
        for index, token_id in enumerate(token_ids):
            self._tokens.append(self._token(token_id, measures[index] if measures else None))
        delivered = self._reported + len(self._text)
        part: list[_Token] = []
        for token in list(self._tokens):
            if token.end > delivered:
                break
            part.append(token)
            if token.whole:
                yield self._part(part, token.end)
                part = []

    def rest(self, stopped: bool) -> Part:
        """What is left at the end of the choice; `stopped`, when a stop string ended it and cut these tokens off."""
        kept = () if stopped else tuple(token.logprob for token in self._tokens if token.logprob)
        return Part(self._text, len(self._tokens), kept)

    def _token(self, token: int, measures: Mapping[int, Any] | None) -> _Token:
        if token in self._vocabulary.hidden:
            return _Token(self._end, True, None)
        raw = self._vocabulary.raw[token] if token < len(self._vocabulary.raw) else b""
        self._end += len(self._decoder.decode(raw))
        logprob = None
        if self._top is not None and measures is not None:
            logprob = self._vocabulary.place(token, measures, self._top)
        return _Token(self._end, not self._decoder.getstate()[0], logprob)

    def _part(self, tokens: Sequence[_Token], end: int) -> Part:
        for _ in tokens:
            self._tokens.popleft()
        length = end - self._reported
        text, self._text, self._reported = self._text[:length], self._text[length:], end
        return Part(text, len(tokens), tuple(token.logprob for token in tokens if token.logprob))


def prompt_part(vocabulary: Vocabulary, prompt: Sequence[int], measures: Sequence[Any] | None, top: int) -> Part:
    """The prompt as text; with `measures`, its log probabilities: nothing was measured (NaN) for its first token."""
    shown = [(index, token) for index, token in enumerate(prompt) if token not in vocabulary.hidden]
    text = b"".join(vocabulary.raw[token] for _, token in shown).decode(errors="replace")
    if measures is None:
        return Part(text, 0, ())
    return Part(
        text,
        0,
        tuple(
            vocabulary.place(token, measures[index], top) if measures[index] else vocabulary.logprob(token, math.nan)
            for index, token in shown
        ),
    )
