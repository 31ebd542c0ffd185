"""Finds the calls of tools in an answer while it streams: what every format has in common.

Whatever the model writes is given on: as a call, or as text. A call is an object with a known name and an object
of arguments; what is none (no JSON, an unknown name, no arguments) is text, as the model wrote it. Once a call has
been opened to the client it stays one, and its arguments are what the model wrote, valid or not; what then breaks
off behind them is text again. White space before a call is no text, nor is that after one unless it parts two texts.
"""

import re
import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from services.gateway.outputs.source import Source, Steps

ALPHANUMERICS: Final = string.ascii_letters + string.digits
ARGUMENTS: Final = ("arguments", "parameters")
QUOTED: Final = re.compile(r'[^"\\]+')
UP_TO_BRACKET: Final = re.compile(r'[^"{}\[\]]+')
SCALAR: Final = re.compile(r"[A-Za-z0-9+\-.]+")


class Text(msgspec.Struct, frozen=True):
    """Content of the answer."""

    text: str


class CallStart(msgspec.Struct, frozen=True):
    """Opens a call; `index` counts them from 0."""

    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """The next piece of a call's arguments, which are JSON text."""

    index: int
    fragment: str


Event = Text | CallStart | CallArguments
NewId = Callable[[], str]


class Broken(Exception):
    """What is being read is no call."""


def call_id() -> str:
    return "call_" + "".join([secrets.choice(ALPHANUMERICS) for _ in range(24)])


class ToolParser(ABC):
    """Reads one choice, which may call the tools `names`. What a format looks like is what `_answer` reads."""

    def __init__(self, names: Collection[str], new_id: NewId = call_id) -> None:
        self._source = Source()
        self._names = names
        self._new_id = new_id
        self._calls = 0
        self._said = False
        self._after_call = False
        self._events: list[Event] = []
        # Pieces of a Text, or of the last call's arguments, that are not an event yet.
        self._pieces: list[str] = []
        self._arguing = False
        self._steps = self._answer()
        next(self._steps)

    def feed(self, text: str) -> list[Event]:
        """What the next fragment of the answer brings; may be nothing yet."""
        if text:
            self._source.add(text)
            next(self._steps)
        return self._given()

    def finish(self) -> list[Event]:
        """What was held back until now. To be called once, last."""
        self._source.end()
        next(self._steps, None)
        return self._given()

    @abstractmethod
    def _answer(self) -> Steps[None]:
        """Reads all of the answer."""

    # ------------------------------------------------------------------------------------------- what is given

    def _say(self, text: str) -> None:
        if text:
            if self._arguing:
                self._flush()
            self._pieces.append(text)
            self._said = True
            self._after_call = False

    def _start(self, name: str) -> None:
        """Opens a call: from now on it is one, so nothing of it is held any more."""
        self._source.drop()
        self._flush()
        self._events.append(CallStart(self._calls, self._new_id(), name))
        self._calls += 1
        self._arguing = self._after_call = True

    def _argue(self, fragment: str) -> None:
        self._pieces.append(fragment)

    def _flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._events.append(CallArguments(self._calls - 1, text) if self._arguing else Text(text))
            self._pieces.clear()
        self._arguing = False

    def _given(self) -> list[Event]:
        arguing = self._arguing
        self._flush()
        self._arguing = arguing
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------------------------ what formats are made of

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise Broken
        return name

    def _expect(self, text: str) -> Steps[None]:
        """Reads `text` after any white space, or raises Broken."""
        yield from self._source.space()
        if not (yield from self._source.literal(text)):
            raise Broken

    def _next_is(self, character: str) -> Steps[bool]:
        """Reads white space, and the character if it comes next."""
        yield from self._source.space()
        found = (yield from self._source.peek()) == character
        if found:
            self._source.take()
        return found

    def _say_held(self) -> Steps[None]:
        """Gives what is held as text, but for white space that only parts calls from what is around them."""
        ended = yield from self._source.ended()
        held = self._source.release()
        if self._after_call and (not self._said or (ended and not held.strip())):
            held = held.lstrip()
        self._say(held)

    def _say_rest(self) -> Steps[None]:
        yield from self._say_held()
        while not (yield from self._source.ended()):
            self._say(self._source.rest())

    def _say_until(self, mark: str) -> Steps[bool]:
        """Gives text until the mark, which is read and held, with the white space before it; False at the end.

        The first character of a mark is nowhere else in it.
        """
        source = self._source
        plain = re.compile(rf"(?:[ \t\r\n]*[^ \t\r\n{re.escape(mark[0])}]+)+")
        while True:
            source.hold()
            yield from source.space()
            if (yield from source.literal(mark)):
                return True
            yield from self._say_held()
            if (yield from source.ended()):
                return False
            self._say(source.match(plain))

    def _call(self) -> Steps[None]:
        """Reads and gives one call, as a JSON object.

        Raises Broken. What is held then is text: from before the object, or from the end of the arguments.
        """
        name, arguments = "", ""
        yield from self._expect("{")
        while True:
            yield from self._source.space()
            member = yield from self._string()
            yield from self._expect(":")
            yield from self._source.space()
            if member == "name" and not name:
                name = self._known((yield from self._string()))
                if arguments:
                    self._start(name)
                    self._argue(arguments)
                    self._source.hold()
            elif member in ARGUMENTS and not arguments:
                arguments = yield from self._arguments(name)
            else:
                yield from self._value()
            if not (yield from self._next_is(",")):
                break
        yield from self._expect("}")
        if not name or not arguments:
            raise Broken
        self._source.drop()

    # ---------------------------------------------------------------------------------------------- pieces of JSON

    def _arguments(self, name: str) -> Steps[str]:
        """Reads an object, and gives it as it comes when the name is known."""
        if (yield from self._source.peek()) != "{":
            raise Broken
        if name:
            self._start(name)
            yield from self._balanced(self._argue)
            self._source.hold()
            return "{}"
        parts: list[str] = []
        yield from self._balanced(parts.append)
        arguments = "".join(parts)
        _value_of(arguments)
        return arguments

    def _value(self) -> Steps[None]:
        """Reads a value that means nothing here."""
        opening = yield from self._source.peek()
        if opening == '"':
            yield from self._string()
        elif opening in ("{", "["):
            yield from self._balanced(lambda _: None)
        else:
            _value_of((yield from self._source.run(SCALAR)))

    def _string(self) -> Steps[str]:
        """Reads a string and returns what it says."""
        source = self._source
        if (yield from source.peek()) != '"':
            raise Broken
        if not (text := (yield from source.quoted(QUOTED))):
            raise Broken
        return str(_value_of(text))

    def _balanced(self, give: Callable[[str], None]) -> Steps[None]:
        """Reads an object or array to its end, or to the answer's, and gives it piece by piece."""
        source = self._source
        depth, quoted = 0, False
        while not (yield from source.ended()):
            if part := source.match(QUOTED if quoted else UP_TO_BRACKET):
                give(part)
                continue
            character = source.take()
            give(character)
            if character == "\\":
                if not (yield from source.ended()):
                    give(source.take())
            elif character == '"':
                quoted = not quoted
            else:
                depth += 1 if character in "{[" else -1
                if not depth:
                    return


def _value_of(text: str) -> object:
    """The value of JSON text. Raises Broken."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Broken from None
