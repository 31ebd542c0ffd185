"""Loads what is needed to turn a conversation into a model's token ids: its tokenizer and its chat template.

Reads a checkpoint's own files with the plain `tokenizers` library, so the ids are those the model was trained
on and the service needs neither torch nor transformers. The scripted engine has no checkpoint and gets a
tokenizer made in memory, a token per byte.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from services.catalog import ModelSpec, generation
from services.tokenizer.conversations import Manners
from services.tokenizer.images import IMAGE, ImageCounter
from services.tokenizer.segments import Encoded, encoded
from services.tokenizer.shapes import byte_characters, shape_of
from services.tokenizer.templates import ChatTemplate, RenderError
from services.vision import Vision, VisionError, read_vision

# The library reads it at its first call. Handing one text to its pool of threads costs more than encoding it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A text to look for in what a template makes of it.
PROBE = "probe"
_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")


class CheckpointError(Exception):
    """The checkpoint's files are missing or cannot be used; the message names the file."""


class PromptModel:
    """One model's tokenizer and template. Immutable after loading; `encode` may run in any thread."""

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        source: str,
        names: Mapping[str, str],
        vision: Vision | None = None,
    ) -> None:
        self.spec = spec
        self.mark = f"{spec.name} {generation(spec)}"
        """Another one where another tokenizer may be."""
        # The catalogue decides what fits; a limit saved with the tokenizer would cut prompts in silence.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        special = (token.content for token in added if token.special or token.content == IMAGE)
        self._template = ChatTemplate(source, names, special)
        self._bound, separators = shape_of(tokenizer)
        self._separator = re.compile(f"({'|'.join(map(re.escape, separators))})") if separators else None
        # The separators, and the nothing that is left between two.
        self.known = dict(zip(("", *separators), self.encode(["", *separators]), strict=True))
        self.manners = _manners(spec, self._template, source)
        self.images = ImageCounter(vision, tokenizer, self._template) if vision else None
        """None for a model that sees no images."""
        self.start = encoded(_start(tokenizer))
        """What the tokenizer puts before every text that no template frames."""
        self.blank = self.start if self.start.tokens else encoded(_blank(tokenizer, names))
        """The prompt where there is no text: a document begins."""
        self.vocabulary = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The pieces of text to encode. Raises RenderError when the template refuses the conversation."""
        return self._template.render(messages, tools, variables)

    def plain(self, text: str) -> list[str]:
        """The pieces to encode of a text that no template frames."""
        return self._template.plain(text)

    def min_tokens(self, text: bytes) -> int:
        """The fewest tokens that a text (UTF-8) can have, at a glance; 0 where this tokenizer proves nothing."""
        return self._bound.min_tokens(text) if self._bound else 0

    def split(self, pieces: list[str]) -> list[str] | None:
        """The pieces as segments, with the separators between them, that encode to the same ids. None: not known how.

        The separators are `known`, and so is the empty segment.
        """
        if self._separator is None:
            return None
        return [part for piece in pieces for part in self._separator.split(piece)]

    def encode(self, texts: list[str]) -> list[Encoded]:
        """The token ids of each text. Lets other threads run: unlike `encode`, the batch call frees the GIL."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoded(encoding.ids) for encoding in encodings]


def _manners(spec: ModelSpec, template: ChatTemplate, source: str) -> Manners:
    parts = not _shows(template, "user", PROBE) and _shows(template, "user", [{"type": "text", "text": PROBE}])
    content = [{"type": "text", "text": PROBE}] if parts else PROBE
    return Manners(spec.tool_format, _shows(template, "system", content), "developer" in source, parts)


def _shows(template: ChatTemplate, role: str, content: Any) -> bool:
    """Whether a message with the probe in it is taken, and the probe shown."""
    messages = [{"role": role, "content": content}]
    if role != "user":
        messages.append({"role": "user", "content": ""})
    try:
        return PROBE in "".join(template.render(messages))
    except RenderError:
        return False


def _start(tokenizer: Tokenizer) -> list[int]:
    """What the post-processor puts before a text, such as the token that begins a document; not what it puts after."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=add).ids for add in (False, True))
    at = next(at for at in range(len(whole) + 1) if whole[at : at + len(bare)] == bare)
    return list(whole[:at])


def _blank(tokenizer: Tokenizer, names: Mapping[str, str]) -> list[int]:
    tokens = (tokenizer.token_to_id(names[name]) for name in ("bos_token", "eos_token") if name in names)
    return [token for token in tokens if token is not None][:1]


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
        source, names = _template_source(directory, config), dict(_token_names(config))
        return PromptModel(spec, tokenizer, source, names, read_vision(directory) if spec.vision else None)
    except RenderError as error:
        raise CheckpointError(f"{directory}: chat template: {error}") from error
    except VisionError as error:
        raise CheckpointError(str(error)) from error


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
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _CHATML_TOKENS])
    return tokenizer
