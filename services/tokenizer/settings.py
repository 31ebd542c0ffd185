"""The tokenizer's settings: where long texts are encoded, and what is remembered."""

from typing import Annotated, ClassVar

import msgspec

from services.settings import Group


class TokenizerSettings(Group, frozen=True, kw_only=True):
    """Settings of the tokenizer service."""

    group: ClassVar[str] = "tokenizer"

    inline_bytes: int = 8 * 1024
    """Rendered text up to this many bytes is encoded on the event loop, longer text in a thread. 8 KiB hold the
    loop for one to two milliseconds; handing over to a thread costs about 0.2 and competes for the same cores."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Threads for loading models and encoding long texts."""

    segment_cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 32 * 1024 * 1024
    """Memory for encoded parts of earlier prompts, so that a conversation's next turn encodes only what is new. 32 MiB
    hold some ten thousand messages of usual length; 0 remembers nothing."""
