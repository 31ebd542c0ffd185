"""An answer that is read while it is still being written.

Readers are generators that read straight ahead and yield where the text so far ends; whoever runs them adds text
and resumes. So how the text was cut into fragments can make no difference to what is read, and what was read can
be had back when it turns out to be something else.
"""

import re
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A reader: yields for more text, and returns a T."""

SPACE: Final = re.compile(r"[ \t\r\n]+")


class Source:
    """The text of one answer. Nothing is kept but the last fragment and what is held."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self._held: list[str] | None = None

    def add(self, text: str) -> None:
        """Only once all text before has been read."""
        self._text, self._at = text, 0

    def end(self) -> None:
        self._ended = True

    def hold(self) -> None:
        """From here on, what is read is kept, in place of what was held before."""
        self._held = []

    def drop(self) -> None:
        """Nothing is held any more."""
        self._held = None

    def release(self) -> str:
        """What was read since `hold`, which is then held no more."""
        held = "".join(self._held or ())
        self._held = None
        return held

    def available(self) -> Steps[bool]:
        """Waits for text; False at the end of the answer."""
        while self._at == len(self._text):
            if self._ended:
                return False
            yield
        return True

    def peek(self) -> Steps[str]:
        """The next character, which stays unread; nothing at the end."""
        return self._text[self._at] if (yield from self.available()) else ""

    def take(self) -> str:
        """Reads the character that was peeked; nothing at the end."""
        return self._consume(min(self._at + 1, len(self._text)))

    def rest(self) -> str:
        """Reads what there is of the text."""
        return self._consume(len(self._text))

    def match(self, pattern: re.Pattern[str]) -> str:
        """Reads what matches in the text that there is, of which more may come."""
        found = pattern.match(self._text, self._at)
        return self._consume(found.end()) if found else ""

    def run(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Reads as far as the pattern goes: one that matches texts of any length, piece by piece."""
        parts = []
        while (yield from self.available()) and (part := self.match(pattern)):
            parts.append(part)
        return "".join(parts)

    def literal(self, text: str) -> Steps[bool]:
        """Reads `text`, or as much of it as is there, and says whether it was all."""
        for character in text:
            if (yield from self.peek()) != character:
                return False
            self.take()
        return True

    def quoted(self, inside: re.Pattern[str]) -> Steps[str]:
        """Reads the string that begins with the peeked quote, as it stands; returns "" where the answer ends in it.

        `inside` matches texts, of any length, without that quote and without a backslash.
        """
        quote = self.take()
        parts = [quote]
        while (character := (yield from self.peek())) != quote:
            if not character:
                return ""
            if character == "\\":
                parts.append(self.take())
                yield from self.peek()
                parts.append(self.take())
            else:
                parts.append(self.match(inside))
        parts.append(self.take())
        return "".join(parts)

    def space(self) -> Steps[None]:
        yield from self.run(SPACE)

    def ended(self) -> Steps[bool]:
        return not (yield from self.available())

    def _consume(self, to: int) -> str:
        taken = self._text[self._at : to]
        self._at = to
        if self._held is not None:
            self._held.append(taken)
        return taken
