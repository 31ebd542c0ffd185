"""Calls written in Python, `[f(a=1, b="x"), g()]`, as the whole answer.

A call's keywords are literals, Python's or JSON's, which become an object in JSON text. They are translated, never
evaluated. A call is given once it is whole: only then is it known to be one.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from services.gateway.outputs.reading import Broken, ToolParser
from services.gateway.outputs.source import Steps

WORD: Final = re.compile(r"[\w-]+")
SCALAR: Final = re.compile(r"[\w.+-]+")
NUMBER: Final = re.compile(r"[+-]?(?=\.?[0-9])([0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
CONSTANTS: Final[Mapping[str, str]] = {
    "True": "true",
    "False": "false",
    "None": "null",
    "true": "true",
    "false": "false",
    "null": "null",
}
QUOTED: Final[Mapping[str, re.Pattern[str]]] = {'"': re.compile(r'[^"\\]+'), "'": re.compile(r"[^'\\]+")}
ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
ESCAPED: Final[Mapping[str, str]] = {
    **{character: character for character in "\"'\\/"},
    **dict(zip("abfnrtv0", "\a\b\f\n\r\t\v\0", strict=True)),
    "\n": "",
}
# Far more than a schema's levels, far less than Python's stack.
DEEPEST: Final = 64


class Pythonic(ToolParser):
    """Text, if the answer does not begin with a list of calls."""

    def _answer(self) -> Steps[None]:
        source = self._source
        source.hold()
        try:
            yield from self._expect("[")
            while True:
                yield from self._python_call()
                source.hold()
                if not (yield from self._next_is(",")):
                    break
            yield from self._expect("]")
            source.hold()
            yield from source.space()
        except Broken:
            pass
        yield from self._say_rest()

    def _python_call(self) -> Steps[None]:
        yield from self._source.space()
        name = self._known((yield from self._source.run(WORD)))
        yield from self._expect("(")
        members: list[str] = []
        seen: set[str] = set()
        while not (yield from self._next_is(")")):
            if (yield from self._next_is("*")):
                yield from self._expect("*")
                yield from self._source.space()
                members += yield from self._members(0)
            else:
                keyword = yield from self._source.run(WORD)
                if not keyword or keyword in seen:
                    raise Broken
                seen.add(keyword)
                yield from self._expect("=")
                members.append(f"{json.dumps(keyword, ensure_ascii=False)}: {(yield from self._literal(0))}")
            if not (yield from self._next_is(",")):
                yield from self._expect(")")
                break
        self._start(name)
        self._argue(f"{{{', '.join(members)}}}")

    # --------------------------------------------------------------------------------- literals, to JSON text

    def _literal(self, depth: int) -> Steps[str]:
        source = self._source
        yield from source.space()
        opening = yield from source.peek()
        if opening in QUOTED:
            return json.dumps((yield from self._python_string()), ensure_ascii=False)
        if opening == "{":
            return f"{{{', '.join((yield from self._members(depth)))}}}"
        if opening == "[":
            return f"[{', '.join((yield from self._items(depth)))}]"
        return _scalar((yield from source.run(SCALAR)))

    def _items(self, depth: int) -> Steps[list[str]]:
        yield from self._deeper("[", depth)
        items: list[str] = []
        while not (yield from self._next_is("]")):
            items.append((yield from self._literal(depth + 1)))
            if not (yield from self._next_is(",")):
                yield from self._expect("]")
                break
        return items

    def _members(self, depth: int) -> Steps[list[str]]:
        yield from self._deeper("{", depth)
        members: list[str] = []
        while not (yield from self._next_is("}")):
            yield from self._source.space()
            key = yield from self._python_string()
            yield from self._expect(":")
            members.append(f"{json.dumps(key, ensure_ascii=False)}: {(yield from self._literal(depth + 1))}")
            if not (yield from self._next_is(",")):
                yield from self._expect("}")
                break
        return members

    def _deeper(self, opening: str, depth: int) -> Steps[None]:
        if depth == DEEPEST:
            raise Broken
        yield from self._expect(opening)

    def _python_string(self) -> Steps[str]:
        source = self._source
        quote = yield from source.peek()
        if quote not in QUOTED:
            raise Broken
        if not (written := (yield from source.quoted(QUOTED[quote]))):
            raise Broken
        text = ESCAPE.sub(_unescaped, written[1:-1])
        # JSON escapes what is beyond 16 bits as two halves; a half alone is no character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(found: re.Match[str]) -> str:
    escape = found[1]
    if len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code <= 0x10FFFF else "\ufffd"
    # Python leaves in what it does not know.
    return ESCAPED.get(escape, found[0])


def _scalar(text: str) -> str:
    if constant := CONSTANTS.get(text):
        return constant
    number = NUMBER.fullmatch(text)
    if not number:
        raise Broken
    whole, fraction, exponent = (number[group] or "" for group in (1, 2, 3))
    sign = "-" if text[0] == "-" else ""
    return f"{sign}{whole.lstrip('0') or '0'}{fraction if len(fraction) > 1 else '.0' if fraction else ''}{exponent}"
