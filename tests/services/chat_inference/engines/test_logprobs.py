"""Tokens are reported with the text that they are a part of."""

import math
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from services.chat_inference.engines.logprobs import Aligner, Part, Vocabulary, prompt_part


class Measure(NamedTuple):
    logprob: float


SPECIAL = 256
VOCABULARY = Vocabulary([*(bytes([byte]) for byte in range(256)), b"<end>"], frozenset({SPECIAL}))


def measured(token: int) -> dict[int, Measure]:
    return {token: Measure(-1.0), (token + 1) % 256: Measure(-0.5), (token + 2) % 256: Measure(-math.inf)}


def fed(aligner: Aligner, texts: list[str], tokens: list[bytes]) -> list[Part]:
    parts: list[Part] = []
    for text, ids in zip(texts, tokens, strict=True):
        parts += aligner.add(text, list(ids), [measured(token) for token in ids])
    return parts


def raw(parts: list[Part]) -> bytes:
    return b"".join(logprob.raw for part in parts for logprob in part.logprobs)


def test_a_character_of_several_tokens_is_one_part() -> None:
    aligner = Aligner(VOCABULARY, 1)
    data = "a🐉b".encode()
    parts = fed(aligner, ["a", "", "", "", "🐉", "b"], [data[i : i + 1] for i in range(6)])
    assert [(part.text, part.tokens, len(part.logprobs)) for part in parts] == [("a", 1, 1), ("🐉", 4, 4), ("b", 1, 1)]
    assert (raw(parts), aligner.rest(stopped=False)) == (data, Part("", 0, ()))
    dragon = parts[1].logprobs[0]
    assert (dragon.token, dragon.raw, dragon.logprob) == ("�", data[1:2], -1.0)
    assert [(top.raw, top.logprob) for top in dragon.top] == [(bytes([data[1] + 1]), -0.5)]


def test_tokens_wait_for_text_that_is_held_back() -> None:
    aligner = Aligner(VOCABULARY, 0)
    assert fed(aligner, ["", "a"], [b"ab", b"c"]) == [
        Part("a", 1, (VOCABULARY.logprob(ord("a"), -1.0),)),
    ]
    assert aligner.rest(stopped=True) == Part("", 2, ())
    aligner = Aligner(VOCABULARY, None)
    assert fed(aligner, ["a"], [b"ab"]) == [Part("a", 1, ())]
    assert aligner.rest(stopped=False) == Part("", 1, ())


def test_special_tokens_are_counted_and_not_shown() -> None:
    aligner = Aligner(VOCABULARY, 0)
    parts = list(aligner.add("ab", [97, SPECIAL, 98], [measured(97), {SPECIAL: Measure(-1.0)}, measured(98)]))
    assert [(part.text, part.tokens, len(part.logprobs)) for part in parts] == [("a", 1, 1), ("", 1, 0), ("b", 1, 1)]


def test_what_is_out_of_the_question_has_a_number() -> None:
    assert VOCABULARY.logprob(97, -math.inf).logprob == -9999.0


def test_the_prompt_is_read_and_its_first_token_was_not_measured() -> None:
    part = prompt_part(VOCABULARY, [SPECIAL, *b"ab"], [None, measured(97), measured(98)], 1)
    assert (part.text, part.tokens, [logprob.logprob for logprob in part.logprobs]) == ("ab", 0, [-1.0, -1.0])
    part = prompt_part(VOCABULARY, list(b"ab"), [None, measured(98)], 1)
    assert math.isnan(part.logprobs[0].logprob) and not part.logprobs[0].top
    assert prompt_part(VOCABULARY, list(b"ab"), None, 0) == Part("ab", 0, ())


@given(st.text(max_size=30), st.data())
def test_every_token_is_reported_once_with_its_text(text: str, data: st.DataObject) -> None:
    """The engine delivers bytes in steps, and text in any way that does not run ahead of them."""
    aligner, encoded = Aligner(VOCABULARY, 0), text.encode()
    parts: list[Part] = []
    read = shown = 0
    while read < len(encoded):
        step = data.draw(st.integers(1, 5))
        ready = len(encoded[: read + step].decode(errors="ignore"))
        until = data.draw(st.integers(shown, ready))
        ids = encoded[read : read + step]
        for part in aligner.add(text[shown:until], list(ids), [measured(token) for token in ids]):
            assert b"".join(logprob.raw for logprob in part.logprobs).decode() == part.text
            parts.append(part)
        read, shown = read + step, until
    stopped = data.draw(st.booleans())
    rest = aligner.rest(stopped)
    parts.append(rest)
    assert sum(part.tokens for part in parts) == len(encoded)
    assert "".join(part.text for part in parts) == text[:shown]
    assert raw(parts) == (text[:shown].encode() if stopped else encoded)
