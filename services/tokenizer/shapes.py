"""What a tokenizer's shape proves about every text, so that work can be left undone without changing an id.

Nothing here looks at a text's meaning: the answers follow from how the `tokenizers` library encodes, and where they
do not follow, nothing is claimed.
"""

import json
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

from tokenizers import Tokenizer


class ByteBound(NamedTuple):
    """What a byte-level tokenizer proves about a text from its bytes alone."""

    max_token_bytes: int
    silent: bytes
    """The bytes that it drops because it has no token for them: rare control characters, in some checkpoints."""

    def min_tokens(self, text: bytes) -> int:
        return -(-len(text.translate(None, self.silent)) // self.max_token_bytes)


class Shape(NamedTuple):
    """What one tokenizer proves."""

    bound: ByteBound | None
    """The bound on a token's bytes, or None where there is none."""

    separators: tuple[str, ...]
    """Added tokens at which a text may be split: encoding the parts apart gives the ids of the whole. Empty where that
    is not proved."""


def shape_of(tokenizer: Tokenizer) -> Shape:
    shape = json.loads(tokenizer.to_str())
    splitter = shape["pre_tokenizer"] or {}
    splitters = splitter.get("pretokenizers", [splitter])
    return Shape(_byte_bound(shape, splitters), _separators(shape, splitters))


def _byte_bound(shape: Mapping[str, Any], splitters: list[dict[str, Any]]) -> ByteBound | None:
    """The bound holds for byte-level BPE without a normalizer.

    Then every byte that has a token is in exactly one, and a token's characters are its bytes. A normalizer shortens
    text, a splitter may remove some of it, and an added token that strips its surroundings stands for any amount of
    white space.
    """
    added = shape["added_tokens"]
    if (
        shape["model"]["type"] != "BPE"
        or shape["model"]["unk_token"] is not None
        or shape["normalizer"] is not None
        or splitters[-1].get("type") != "ByteLevel"
        or any(s.get("type") not in ("ByteLevel", "Split", "Digits") for s in splitters)
        or any(s.get("behavior") == "Removed" for s in splitters)
        or any(token["lstrip"] or token["rstrip"] for token in added)
    ):
        return None
    vocabulary = shape["model"]["vocab"]
    longest = max(*map(len, vocabulary), *(len(token["content"].encode()) for token in added), 1)
    silent = bytes(byte for byte, character in enumerate(byte_characters()) if character not in vocabulary)
    return ByteBound(longest, silent)


def _separators(shape: Mapping[str, Any], splitters: list[dict[str, Any]]) -> tuple[str, ...]:
    """The library first cuts a text at the added tokens that are not normalized, leftmost and longest first.

    Each remaining part then goes through normalizer, splitter and model by itself. So its ids depend on nothing
    outside it, unless a token takes white space or a look at its neighbours, a splitter asks where in the text it is
    (Metaspace does), or the model draws lots. Longest first, as whoever splits has to match them.
    """
    added = shape["added_tokens"]
    contents = [token["content"] for token in added]
    if (
        shape["model"]["type"] != "BPE"
        or shape["model"].get("dropout")
        or (shape["normalizer"] or {}).get("type", "NFC") not in ("NFC", "NFD", "NFKC", "NFKD")
        or any(s.get("type") not in ("ByteLevel", "Split", "Digits") for s in splitters)
        or any(s.get("add_prefix_space") for s in splitters)
        or any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added)
        or len(set(contents)) < len(contents)
    ):
        return ()
    texts = (token["content"] for token in added if not token["normalized"] and token["content"])
    return tuple(sorted(texts, key=len, reverse=True))


def byte_characters() -> list[str]:
    """How byte-level vocabularies write each byte: printable ones of Latin-1 as they are, the others from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
