"""What the answer is held to while it is generated, so that calls and structured answers need no luck.

As one text for xgrammar, in its language of structural tags. With tools there are three kinds of answers: calls
only (`required`), calls or JSON (`auto` with a response format), and calls or any text (`auto`). Any text is all
that does not begin as a call does. After calls the answer ends.

A strict function's arguments and a strict response format are held to their schema, others as far as that can be.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Constraint
from services.gateway.outputs.parsers import HERMES_BEGIN, HERMES_END, MISTRAL_BEGIN
from services.gateway.outputs.relaxed import DEFINITIONS, relaxed
from services.gateway.requests.chat import ChatRequest
from services.gateway.requests.formats import ResponseFormat
from services.gateway.requests.tools import FunctionTool

Json = dict[str, Any]
"""A piece of a structural tag, or a schema."""

ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}
KEYWORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def constraint(chat: ChatRequest, tool_format: str) -> Constraint | None:
    """None when any text will do. `tool_format` is one of FORMS if tools may be called."""
    if not may_call(chat):
        return _answer_constraint(chat.response_format)
    form = FORMS[tool_format]
    # A function that the client named is called once, as OpenAI's models do; small ones would not stop.
    calls = form.calls(callable_tools(chat), chat.tool_choice.named or not chat.parallel_tool_calls)
    if chat.tool_choice.mode == "required":
        whole = calls
    elif chat.response_format.kind == "text":
        whole = form.or_text(calls)
    else:
        whole = _either(calls, _json(_answer_schema(chat.response_format)))
    return Constraint(structural_tag=_text({"type": "structural_tag", "format": whole}))


def may_call(chat: ChatRequest) -> bool:
    """Whether the answer may have calls, so that it must be parsed for them."""
    return bool(chat.tools) and chat.tool_choice.mode != "none"


def callable_tools(chat: ChatRequest) -> Sequence[FunctionTool]:
    names = chat.tool_choice.names
    return [tool for tool in chat.tools if tool.name in names] if names else chat.tools


def _answer_constraint(response_format: ResponseFormat) -> Constraint | None:
    if response_format.kind == "text":
        return None
    if response_format.kind == "json_object":
        return Constraint(json_object=True)
    return Constraint(json_schema=_text(_answer_schema(response_format)))


def _answer_schema(response_format: ResponseFormat) -> Mapping[str, Any]:
    schema = response_format.schema
    if schema is None:
        return ANY_OBJECT
    return schema if response_format.strict else relaxed(schema)


def _arguments_schema(tool: FunctionTool) -> Mapping[str, Any]:
    if tool.parameters is None:
        return NO_ARGUMENTS
    if tool.strict:
        return tool.parameters
    schema = relaxed(tool.parameters)
    # Arguments are an object, whatever else the schema speaks of.
    return schema if schema.get("type") == "object" else ANY_OBJECT


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# ------------------------------------------------------------------------------------- pieces of structural tags


def _constant(text: str) -> Json:
    return {"type": "const_string", "value": text}


def _pattern(pattern: str) -> Json:
    return {"type": "regex", "pattern": pattern}


def _json(schema: Mapping[str, Any] | bool) -> Json:
    return {"type": "json_schema", "json_schema": schema}


def _sequence(*elements: Json) -> Json:
    return {"type": "sequence", "elements": elements}


def _either(*elements: Json) -> Json:
    return {"type": "or", "elements": elements}


def _tag(begin: str, content: Json, end: str) -> Json:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def _list(tags: Sequence[Json], separator: str, one: bool) -> Json:
    """At least one of the tags, and at most that if `one`."""
    return {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": one,
    }


def _after(mark: str) -> Callable[[Json], Json]:
    """Text in which the mark begins the calls."""
    return lambda calls: {"type": "triggered_tags", "triggers": [mark], "tags": [calls], "stop_after_first": True}


def _unless(first: str) -> Callable[[Json], Json]:
    """Calls, or text that begins with a match of `first`, which calls do not."""
    text = {"type": "optional", "content": _sequence(_pattern(first), {"type": "any_text"})}
    return lambda calls: _either(calls, text)


def _json_calls(tools: Sequence[FunctionTool], key: str) -> list[Json]:
    return [_tag(f'{{"name": "{tool.name}", "{key}": ', _json(_arguments_schema(tool)), "}") for tool in tools]


# ------------------------------------------------------------------------------------------------- the formats


class Form(NamedTuple):
    """How a format's answers are held."""

    # The tools, and whether one call is the most.
    calls: Callable[[Sequence[FunctionTool], bool], Json]
    or_text: Callable[[Json], Json]


def _hermes(tools: Sequence[FunctionTool], one: bool) -> Json:
    begin, end = f"{HERMES_BEGIN}\n", f"\n{HERMES_END}"
    return _tag(begin, _list(_json_calls(tools, "arguments"), f"{end}\n{begin}", one), end)


def _llama(tools: Sequence[FunctionTool], one: bool) -> Json:
    return _list(_json_calls(tools, "parameters"), "; ", one)


def _mistral(tools: Sequence[FunctionTool], one: bool) -> Json:
    return _tag(f"{MISTRAL_BEGIN}[", _list(_json_calls(tools, "arguments"), ", ", one), "]")


def _pythonic(tools: Sequence[FunctionTool], one: bool) -> Json:
    tags = [_tag(f"{tool.name}(", _keywords(tool), ")") for tool in tools]
    return _tag("[", _list(tags, ", ", one), "]")


def _keywords(tool: FunctionTool) -> Json:
    """The arguments of a call in Python; their values are JSON, and so not quite Python's."""
    schema = _arguments_schema(tool)
    if not tool.strict and schema is not NO_ARGUMENTS:
        # Which of them are left out cannot be told in this form.
        member = _sequence(_pattern(f"{KEYWORD.pattern}="), _json(True))
        more = {"type": "star", "content": _sequence(_constant(", "), member)}
        return {"type": "optional", "content": _sequence(member, more)}
    properties = schema.get("properties", {})
    if not properties:
        return _constant("")
    if not all(map(KEYWORD.fullmatch, properties)) or '"$ref":"#"' in _text(schema):
        return _sequence(_constant("**"), _json(schema))
    definitions = {key: schema[key] for key in DEFINITIONS if key in schema}
    elements: list[Json] = []
    for name, part in properties.items():
        elements += (_constant(f"{', ' if elements else ''}{name}="), _json({**part, **definitions}))
    return _sequence(*elements)


FORMS: Final[Mapping[str, Form]] = {
    "hermes": Form(_hermes, _after(HERMES_BEGIN)),
    # What begins with white space would still be read as a call.
    "llama": Form(_llama, _unless(r'[^{<\s]|<[^|]|\{([^"\s]|"([^n]|n([^a]|a([^m]|m([^e]|e[^"])))))')),
    "mistral": Form(_mistral, _after(MISTRAL_BEGIN)),
    "pythonic": Form(_pythonic, _unless(r"[^\[\s]|\[([^A-Za-z0-9_\s-]|[A-Za-z0-9_-]+[^A-Za-z0-9_(-])")),
}
