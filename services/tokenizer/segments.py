"""Remembers how segments of text are encoded: every turn of a conversation repeats all earlier ones.

A segment is what stands between two of a tokenizer's separators: one message, say. What is remembered of an
organisation's text is found only under that organisation, so nobody can learn from a fast answer what somebody else
has said.
"""

import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from modelplane.tokenizer.v1.tokenizer_pb2 import Prompt

WORD_BYTES = 4
# What an entry takes beside its texts: the key's tuple, the value's, and their place in the dictionary.
_ENTRY_BYTES = 350


class Encoded(NamedTuple):
    """Token ids in the two forms that are joined and used without looking at a single id."""

    wire: bytes
    """The ids as a serialised Prompt; Prompts that follow one another read as one with the ids of all."""

    words: bytes
    """The ids as words of 32 bits in this machine's order."""

    @property
    def tokens(self) -> int:
        return len(self.words) // WORD_BYTES

    def ids(self) -> list[int]:
        return array("I", self.words).tolist()


def encoded(token_ids: Sequence[int]) -> Encoded:
    return Encoded(Prompt(token_ids=token_ids).SerializeToString(), array("I", token_ids).tobytes())


def joined(parts: Iterable[Encoded]) -> Encoded:
    wires, words = zip(*parts, strict=True)
    return Encoded(b"".join(wires), b"".join(words))


class SegmentCache:
    """Encoded segments, the least recently used forgotten first. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, str, str], Encoded] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What the entries take, about."""
        return self._bytes

    def recall(
        self, organization: str, model: str, texts: Iterable[str], known: Mapping[str, Encoded]
    ) -> tuple[dict[str, Encoded], list[str]]:
        """How the texts are encoded, and those of which it is not remembered. `known` ones need no remembering."""
        found: dict[str, Encoded] = {}
        missing: list[str] = []
        entries = self._entries
        for text in dict.fromkeys(texts):
            value = known.get(text)
            if value is None:
                key = (organization, model, text)
                value = entries.get(key)
                if value is None:
                    missing.append(text)
                    continue
                entries.move_to_end(key)
            found[text] = value
        return found, missing

    def remember(self, organization: str, model: str, values: Mapping[str, Encoded]) -> None:
        for text, value in values.items():
            size = _size(text, value)
            key = (organization, model, text)
            # Another call may have remembered it meanwhile, and one huge text must not drive out all others.
            if size <= self._max_bytes // 4 and key not in self._entries:
                self._entries[key] = value
                self._bytes += size
        while self._bytes > self._max_bytes:
            (_, _, text), value = self._entries.popitem(last=False)
            self._bytes -= _size(text, value)


def _size(text: str, value: Encoded) -> int:
    return sys.getsizeof(text) + sys.getsizeof(value.wire) + sys.getsizeof(value.words) + _ENTRY_BYTES
