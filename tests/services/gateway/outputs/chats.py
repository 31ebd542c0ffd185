"""Requests with tools, as clients send them, and bodies of answers in every format."""

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from services.gateway.outputs.reading import CallArguments, CallStart, Event, NewId, Text, ToolParser
from services.gateway.requests.chat import ChatRequest, parse_chat

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "parameters": CITY, "strict": True}
# Not strict, and open to more than it names.
SEARCH = {
    "name": "search",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string", "pattern": "^not held to$"}},
        "additionalProperties": True,
    },
}
# Takes nothing.
CLOCK = {"name": "clock"}
FORMATS = ("hermes", "llama", "mistral", "pythonic")


def chat(offers: Sequence[dict[str, Any]] = (WEATHER, SEARCH, CLOCK), **fields: Any) -> ChatRequest:
    """A request that offers these functions as tools."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Answer in JSON."}], **fields}
    if offers:
        body["tools"] = [{"type": "function", "function": function} for function in offers]
    return parse_chat(json.dumps(body).encode())


def numbered() -> NewId:
    """Ids call_0, call_1 and so on."""
    numbers = count()
    return lambda: f"call_{next(numbers)}"


Call = tuple[str, Any]


def write(tool_format: str, calls: Sequence[Call]) -> str:
    """Calls as a model trained on the format writes them."""
    if tool_format == "pythonic":
        written = (f"{name}({', '.join(f'{key}={value!r}' for key, value in args.items())})" for name, args in calls)
        return f"[{', '.join(written)}]"
    key = "parameters" if tool_format == "llama" else "arguments"
    objects = [f'{{"name": {json.dumps(name)}, "{key}": {json.dumps(arguments)}}}' for name, arguments in calls]
    if tool_format == "hermes":
        return "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in objects)
    return "; ".join(objects) if tool_format == "llama" else f"[TOOL_CALLS][{', '.join(objects)}]"


def read(parser: ToolParser, fragments: Sequence[str]) -> Iterator[Event]:
    for fragment in fragments:
        yield from parser.feed(fragment)
    yield from parser.finish()


def gathered(events: Iterator[Event]) -> tuple[str, list[tuple[str, str]]]:
    """All text, and the calls' names and arguments. Events come in the order that clients rely on."""
    text: list[str] = []
    calls: list[tuple[str, list[str]]] = []
    for event in events:
        match event:
            case Text():
                assert event.text
                text.append(event.text)
            case CallStart():
                assert (event.index, event.id) == (len(calls), f"call_{len(calls)}")
                calls.append((event.name, []))
            case CallArguments():
                assert event.fragment and event.index == len(calls) - 1
                calls[-1][1].append(event.fragment)
    return "".join(text), [(name, "".join(fragments)) for name, fragments in calls]
