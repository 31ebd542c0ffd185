"""How models write calls: the formats, and the parser for each. BEGIN and END are a format's marks.

hermes    text <tool_call>\\n{"name": "f", "arguments": {...}}\\n</tool_call> again and again
llama     {"name": "f", "parameters": {...}}; {...} as the whole answer, perhaps behind <|python_tag|>
mistral   text [TOOL_CALLS][{"name": "f", "arguments": {...}}, {...}]
pythonic  [f(a=1, b="x"), g()] as the whole answer
"""

from collections.abc import Collection, Mapping
from typing import Final

from services.gateway.outputs.pythonic import Pythonic
from services.gateway.outputs.reading import Broken, NewId, ToolParser, call_id
from services.gateway.outputs.source import Steps

HERMES_BEGIN: Final = "<tool_call>"
HERMES_END: Final = "</tool_call>"
LLAMA_BEGIN: Final = "<|python_tag|>"
LLAMA_SEPARATOR: Final = ";"
MISTRAL_BEGIN: Final = "[TOOL_CALLS]"


class Hermes(ToolParser):
    """Calls anywhere among text, each between marks."""

    def _answer(self) -> Steps[None]:
        source = self._source
        while (yield from self._say_until(HERMES_BEGIN)):
            try:
                yield from self._call()
                source.hold()
                yield from source.space()
                # An answer that ends early may lack the mark, or the end of it.
                if (yield from source.literal(HERMES_END)) or (yield from source.ended()):
                    source.drop()
            except Broken:
                pass
            yield from self._say_held()


class Llama(ToolParser):
    """Calls as the whole answer, and text if it does not begin with one."""

    def _answer(self) -> Steps[None]:
        source = self._source
        source.hold()
        yield from source.space()
        yield from source.literal(LLAMA_BEGIN)
        try:
            while True:
                yield from self._call()
                source.hold()
                if not (yield from self._next_is(LLAMA_SEPARATOR)):
                    break
        except Broken:
            pass
        yield from self._say_rest()


class Mistral(ToolParser):
    """A list of calls behind a mark, after any text."""

    def _answer(self) -> Steps[None]:
        source = self._source
        while (yield from self._say_until(MISTRAL_BEGIN)):
            try:
                yield from self._expect("[")
                while True:
                    yield from self._call()
                    source.hold()
                    if not (yield from self._next_is(",")):
                        break
                yield from self._expect("]")
                source.drop()
            except Broken:
                pass
            yield from self._say_held()


PARSERS: Final[Mapping[str, type[ToolParser]]] = {
    "hermes": Hermes,
    "llama": Llama,
    "mistral": Mistral,
    "pythonic": Pythonic,
}


def parser(tool_format: str, tool_names: Collection[str], new_id: NewId = call_id) -> ToolParser:
    """Reads one choice of an answer in a format of PARSERS."""
    return PARSERS[tool_format](tool_names, new_id)
