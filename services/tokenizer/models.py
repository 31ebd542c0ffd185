"""Loads what is needed to turn a conversation into a model's token ids: its tokenizer and its chat template.

Reads a checkpoint's own files with the plain `tokenizers` library, so the ids are those the model was trained
on and the service needs neither torch nor transformers. The scripted engine has no checkpoint and gets a
tokenizer made in memory, a token per byte.
"""

import json
import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from services.catalog import ModelSpec
from services.tokenizer.templates import ChatTemplate, RenderError

# The library reads it at its first call. Handing one text to its pool of threads costs more than encoding it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


class CheckpointError(Exception):
    """The checkpoint's files are missing or cannot be used; the message names the file."""


class PromptModel:
    """One model's tokenizer and template. Immutable after loading; `encode` may run in any thread."""

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer, source: str, names: Mapping[str, str]) -> None:
        self.spec = spec
        # The catalogue decides what fits; a limit saved with the tokenizer would cut prompts in silence.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._template = ChatTemplate(source, names, (token.content for token in added if token.special))
        self._bound = byte_bound(tokenizer)

    def render(self, messages: list[dict[str, str]]) -> list[str]:
        """The pieces of text to encode. Raises RenderError when the template refuses the conversation."""
        return self._template.render(messages)

    def min_tokens(self, text: bytes) -> int:
        """The fewest tokens that a text (UTF-8) can have, at a glance; 0 where this tokenizer proves nothing."""
        return self._bound.min_tokens(text) if self._bound else 0

    def encode(self, pieces: list[str]) -> list[int]:
        """The token ids of a rendered prompt. Lets other threads run: unlike `encode`, the batch call frees the GIL."""
        encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        if len(encodings) == 1:
            return encodings[0].ids
        return [token_id for encoding in encodings for token_id in encoding.ids]


def load(spec: ModelSpec, directory: Path) -> PromptModel:
    """Reads tokenizer and template of a model; `directory` is its checkpoint. Blocks. Raises CheckpointError."""
    if spec.engine == "scripted":
        return PromptModel(spec, _byte_tokenizer(), _CHATML, {})
    config = _json(directory / "tokenizer_config.json")
    try:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # the library raises plain Exception for a missing or broken file
        raise CheckpointError(f"{directory / 'tokenizer.json'}: {error}") from error
    try:
        return PromptModel(spec, tokenizer, _template_source(directory, config), dict(_token_names(config)))
    except RenderError as error:
        raise CheckpointError(f"{directory}: chat template: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content


def _template_source(directory: Path, config: Mapping[str, Any]) -> str:
    """chat_template.jinja, else `chat_template` of the configuration: a text, or a list of named ones."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}.get("default")
    if not isinstance(source, str):
        raise CheckpointError(f"{directory}: no chat template: the model cannot hold conversations")
    return source


def _token_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """`bos_token`, `eos_token` and the like, each written as a text or as an object with `content`."""
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            yield key, text


def _byte_tokenizer() -> Tokenizer:
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _CHATML_TOKENS])
    return tokenizer


class ByteBound(NamedTuple):
    """What a byte-level tokenizer proves about a text from its bytes alone."""

    max_token_bytes: int
    silent: bytes
    """The bytes that it drops because it has no token for them: rare control characters, in some checkpoints."""

    def min_tokens(self, text: bytes) -> int:
        return -(-len(text.translate(None, self.silent)) // self.max_token_bytes)


def byte_bound(tokenizer: Tokenizer) -> ByteBound | None:
    """The bound, or None where there is none.

    It holds for byte-level BPE without a normalizer: then every byte that has a token is in exactly one, and a
    token's characters are its bytes. A normalizer shortens text, a splitter may remove some of it, and an added
    token that strips its surroundings stands for any amount of white space.
    """
    shape = json.loads(tokenizer.to_str())
    splitter = shape["pre_tokenizer"] or {}
    splitters = splitter.get("pretokenizers", [splitter])
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
    silent = bytes(byte for byte, character in enumerate(_byte_characters()) if character not in vocabulary)
    return ByteBound(longest, silent)


def _byte_characters() -> list[str]:
    """How byte-level vocabularies write each byte: printable ones of Latin-1 as they are, the others from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
