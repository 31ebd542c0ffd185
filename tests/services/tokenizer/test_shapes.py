"""What a tokenizer proves: the bound on a token's bytes, and where a text may be split."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Tokens
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from services.catalog import ModelSpec
from services.tokenizer.models import PromptModel
from services.tokenizer.shapes import shape_of
from tests.services.tokenizer.checkpoints import SPECIAL, TEMPLATE, byte_level_tokenizer

texts = st.text(max_size=60) | st.text(alphabet="the cat1é€😀\n <|im_start|>", max_size=60)


@given(texts)
def test_no_token_stands_for_more_bytes_than_the_bound(text: str) -> None:
    tokenizer = byte_level_tokenizer()
    bound = shape_of(tokenizer).bound
    assert bound is not None and not bound.silent
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert bound.min_tokens(text.encode()) <= len(ids)


@given(st.text(alphabet="\x04\x05ab ", max_size=400))
def test_bytes_that_a_tokenizer_drops_prove_nothing(text: str) -> None:
    characters = sorted(set(ByteLevel.alphabet()) - {"\u0104"})
    tokenizer = Tokens(BPE(vocab={character: index for index, character in enumerate(characters)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    bound = shape_of(tokenizer).bound
    assert bound is not None and bound.silent == b"\x04"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert bound.min_tokens(text.encode()) == len(ids) == len(text.replace("\x04", ""))


def strip(tokenizer: Tokens) -> None:
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])


def normalize(tokenizer: Tokens) -> None:
    tokenizer.normalizer = normalizers.NFC()


def split_away(tokenizer: Tokens) -> None:
    split = pre_tokenizers.Split(" ", behavior="removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def by_words(tokenizer: Tokens) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


@pytest.mark.parametrize("change", [strip, normalize, split_away, by_words])
def test_without_proof_there_is_no_bound(change: object) -> None:
    tokenizer = byte_level_tokenizer()
    assert callable(change)
    change(tokenizer)
    assert shape_of(tokenizer).bound is None
    assert PromptModel(ModelSpec(name="small"), tokenizer, TEMPLATE, {}).min_tokens(b" " * 10_000) == 0


def prefix_space(tokenizer: Tokens) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def metaspace(tokenizer: Tokens) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")


def lowercase(tokenizer: Tokens) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def single_word(tokenizer: Tokens) -> None:
    tokenizer.add_tokens([AddedToken("word", single_word=True)])


def drop_out(tokenizer: Tokens) -> None:
    tokenizer.model.dropout = 0.1


@pytest.mark.parametrize("change", [strip, by_words, prefix_space, metaspace, lowercase, single_word, drop_out])
def test_without_proof_nothing_is_split(change: object) -> None:
    tokenizer = byte_level_tokenizer()
    assert callable(change)
    assert set(shape_of(tokenizer).separators) == set(SPECIAL)
    change(tokenizer)
    assert shape_of(tokenizer).separators == ()


def leave(tokenizer: Tokens) -> None:
    """As it is."""


def compose(tokenizer: Tokens) -> None:
    tokenizer.normalizer = normalizers.NFC()


def overlap(tokenizer: Tokens) -> None:
    """Tokens that begin and end like others, one of them normalized."""
    tokenizer.add_special_tokens(["<|im", "<|im_start|><", "cat<|", "a"])
    tokenizer.add_tokens([AddedToken("e|", normalized=False), AddedToken("t <", normalized=True)])


def like_llama(tokenizer: Tokens) -> None:
    split = pre_tokenizers.Split(Regex(r"\s+(?!\S)|\p{N}{1,3}| ?\p{L}+|."), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])


fragments = st.lists(
    st.sampled_from(
        [*SPECIAL, "<|im", "_start|>", "<", "|>", " ", "\n", "  ", "the cat", "a", "e", "\u0301", "12", "é"]
    )
    | st.text(max_size=5)
)


@pytest.mark.parametrize("change", [leave, compose, overlap, like_llama])
@given(fragments=fragments)
def test_parts_encode_as_the_whole(change: object, fragments: list[str]) -> None:
    tokenizer = byte_level_tokenizer()
    assert callable(change)
    change(tokenizer)
    text = "".join(fragments)
    separators = shape_of(tokenizer).separators
    parts = re.split(f"({'|'.join(map(re.escape, separators))})", text)
    ids = [i for part in parts for i in tokenizer.encode(part, add_special_tokens=False).ids]
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
