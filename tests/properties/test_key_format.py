"""Keys survive the way to text and back, and no slip of the hand makes another key of one."""

import string

from hypothesis import given
from hypothesis import strategies as st

from modelplane.auth.v1 import auth_pb2
from services import key_format as keys

kinds = st.sampled_from([auth_pb2.KEY_KIND_PROJECT, auth_pb2.KEY_KIND_ADMIN])
randoms = st.binary(min_size=keys.RANDOM_BYTES, max_size=keys.RANDOM_BYTES)
ALPHABET = string.ascii_letters + string.digits + "-_"


@given(kinds, randoms)
def test_a_generated_key_is_parsed_as_its_kind(kind: auth_pb2.KeyKind, random: bytes) -> None:
    assert keys.parse(keys.generate(kind, random)) == kind


@given(kinds, randoms, randoms)
def test_different_randomness_makes_different_keys(kind: auth_pb2.KeyKind, one: bytes, other: bytes) -> None:
    assert (keys.generate(kind, one) == keys.generate(kind, other)) == (one == other)


@given(kinds, randoms, st.data())
def test_one_wrong_character_is_noticed(kind: auth_pb2.KeyKind, random: bytes, data: st.DataObject) -> None:
    key = keys.generate(kind, random)
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != key[place]))
    assert keys.parse(key[:place] + wrong + key[place + 1 :]) is None


@given(kinds, randoms, st.data())
def test_a_piece_of_a_key_is_noticed(kind: auth_pb2.KeyKind, random: bytes, data: st.DataObject) -> None:
    key = keys.generate(kind, random)
    assert keys.parse(key[: data.draw(st.integers(0, len(key) - 1))]) is None
    assert keys.parse(key + data.draw(st.text(min_size=1))) is None


@given(st.text())
def test_any_text_is_parsed_and_shown_without_failing(text: str) -> None:
    for prefix in ("", *keys.PREFIXES.values()):
        assert keys.parse(prefix + text) is None
        assert keys.redact(prefix + text).isprintable() or not text.isprintable()


@given(kinds, randoms)
def test_what_is_shown_of_a_key_gives_nothing_away(kind: auth_pb2.KeyKind, random: bytes) -> None:
    key = keys.generate(kind, random)
    shown = keys.redact(key)
    assert shown == keys.PREFIXES[kind] + "****" + key[-4:]
    assert keys.parse(shown) is None


@given(st.text(max_size=19))
def test_short_texts_are_not_shown_at_all(text: str) -> None:
    assert keys.redact(text) in ("****", "sk-****", "sk-proj-****", "sk-admin-****")


@given(kinds, randoms, st.binary(min_size=64, max_size=64), st.binary(min_size=64, max_size=64))
def test_the_digest_depends_on_the_pepper(kind: auth_pb2.KeyKind, random: bytes, one: bytes, other: bytes) -> None:
    key = keys.generate(kind, random)
    assert keys.digest(key, one) == keys.digest(key, one)
    if one != other:
        assert keys.digest(key, one) != keys.digest(key, other)
