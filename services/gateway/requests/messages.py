"""The conversation: every role's fields, and that each call of a tool is answered right after it.

A message with images has parts; where the images are to be had stands apart from it, in `image_references`.

The deprecated forms become the present ones here, so that nothing further on knows of them: a `function_call` is a
tool call with an id of ours, and a message of the role `function` is a tool's message that answers it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from modelplane.tokenizer.v1.tokenizer_pb2 import Image, Message, Part, ToolCall
from services.faults import Fault
from services.gateway.requests.values import (
    Json,
    Parser,
    array,
    identifier,
    members,
    missing,
    named,
    not_allowed,
    one_of,
    string,
    unsupported,
    unsupported_value,
    wrong_type,
)

# Parts that OpenAI's API has and this platform does not.
NOT_BUILT: Final = ("input_audio", "file")
# Messages of these roles may be no more than a role and a string.
PLAIN: Final = ("system", "user", "assistant", "developer")


def parse_messages(path: str, value: Json) -> list[Message]:
    """As the tokenizer takes them. Raises InvalidRequest for a message that is wrong or out of its order."""
    calls = _Calls()
    messages = []
    for index, item in enumerate(array(path, value, "objects")):
        if type(item) is dict and len(item) == 2 and not calls.open:
            # By far the most messages: nothing to look for.
            role, content = item.get("role"), item.get("content")
            if role in PLAIN and type(content) is str:
                messages.append(Message(role=role, content=content))
                continue
        message = _message(f"{path}[{index}]", item)
        calls.follow(index, message)
        messages.append(message)
    calls.finish()
    return messages


class ImageReference(msgspec.Struct, frozen=True):
    """Where an image is to be had, an https or data URL, and how closely it is to be seen: low, high or auto."""

    url: str
    detail: str


def image_references(messages: Json) -> tuple[ImageReference, ...]:
    """Of messages that were parsed without a fault, in the order in which the parsed ones have their parts."""
    return tuple(
        ImageReference(part["image_url"]["url"], part["image_url"].get("detail") or DETAIL)
        for message in messages
        if type(message.get("content")) is list
        for part in message["content"]
        if part["type"] == "image_url"
    )


class _Calls:
    """Holds each assistant's message with tool calls to its answers, which come right after it."""

    def __init__(self) -> None:
        # Of the last message with calls, until other messages follow: the called functions by id.
        self.open: dict[str, str] = {}
        self._unanswered: dict[str, None] = {}
        self._asked_at = 0
        # By function the latest call of the deprecated kind.
        self._function_calls: dict[str, str] = {}

    def follow(self, index: int, message: Message) -> None:
        """Takes the next message; a tool's gets the name of its function."""
        if message.role == "tool":
            self._answer(index, message)
            return
        self.finish()
        self.open.clear()
        if message.role == "function":
            message.role = "tool"
            message.tool_call_id = self._function_calls.get(message.name, "")
        for call in message.tool_calls:
            if call.id:
                self.open[call.id] = call.name
                self._unanswered[call.id] = None
                self._asked_at = index
            else:
                call.id = f"call_{index}"
                self._function_calls[call.name] = call.id

    def finish(self) -> None:
        """No more answers can come. Raises InvalidRequest when some are missing."""
        if self._unanswered:
            raise not_allowed(
                f"messages.[{self._asked_at}].role",
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: "
                f"{', '.join(self._unanswered)}",
            )

    def _answer(self, index: int, message: Message) -> None:
        if message.tool_call_id not in self.open:
            raise not_allowed(
                f"messages.[{index}].role",
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                "'tool_calls'.",
            )
        self._unanswered.pop(message.tool_call_id, None)
        message.name = message.name or self.open[message.tool_call_id]


def _message(path: str, value: Json) -> Message:
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    role = value.get("role")
    if role is None:
        raise missing(f"{path}.role")
    parsed = members(path, value, ROLES[_role(f"{path}.role", role)])
    content = parsed.get("content")
    if type(content) is list:
        # Of a user, who has nothing else to say.
        return Message(role=role, name=parsed.get("name", ""), parts=content)
    parts = [] if content is None else [content]
    if refusal := parsed.get("refusal"):
        parts.append(refusal)
    calls = parsed.get("tool_calls", [])
    if "function_call" in parsed:
        if calls:
            raise not_allowed(
                f"{path}.function_call", f"Invalid value for '{path}.function_call': the message has 'tool_calls' too."
            )
        calls = [parsed["function_call"]]
    if not parts and not calls and role != "function":
        raise _no_content(path, value)
    for name in NEEDED.get(role, ()):
        if name not in parsed:
            raise missing(f"{path}.{name}")
    return Message(
        role=role,
        content="\n".join(parts),
        name=parsed.get("name", ""),
        tool_calls=calls,
        tool_call_id=parsed.get("tool_call_id", ""),
    )


def _no_content(path: str, value: Mapping[str, Json]) -> Fault:
    if "content" not in value:
        return missing(f"{path}.content")
    return not_allowed(f"{path}.content", "Invalid value for 'content': expected a string, got null.")


# ------------------------------------------------------------------------------------------------- contents


def _content(*kinds: str) -> Parser:
    """Content of a role whose parts may be of `kinds`: a string, or parts.

    Gives a text, that of the parts joined by line breaks; or the parts as the tokenizer takes them, with an image
    among them.
    """
    kind = one_of(*kinds)

    def parse(path: str, value: Json) -> str | list[Part]:
        if type(value) is str:
            return value
        if type(value) is not list:
            raise wrong_type(path, "one of a string or array of objects", value)
        parts = [_part(f"{path}[{index}]", part, kind) for index, part in enumerate(array(path, value, "objects"))]
        if any(type(part) is Image for part in parts):
            return [Part(image=part) if type(part) is Image else Part(text=part) for part in parts]
        return "\n".join(parts)

    return parse


def _part(path: str, value: Json, kind_of: Callable[[str, Json], str]) -> Any:
    """A part's text, or its image."""
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    kind = value.get("type")
    if kind is None:
        raise missing(f"{path}.type")
    if kind_of(f"{path}.type", kind) in NOT_BUILT:
        raise unsupported_value(f"{path}.type", kind, ("text", "image_url"))
    parse = _image if kind == "image_url" else string
    parsers = {"type": string, kind: parse, "prompt_cache_breakpoint": _breakpoint}
    return members(path, value, parsers, required=(kind,))[kind]


DETAIL: Final = "auto"


def _image(path: str, value: Json) -> Image:
    parsed = members(path, value, {"url": string, "detail": one_of(DETAIL, "low", "high")}, required=("url",))
    return Image(detail=parsed.get("detail", DETAIL))


def _breakpoint(path: str, value: Json) -> None:
    """Where the client would have a prompt cached; here every prefix is."""
    members(path, value, {"mode": one_of("explicit")}, required=("mode",))


# ------------------------------------------------------------------------------------- what was said with it


def _tool_calls(path: str, value: Json) -> list[ToolCall]:
    """Also an empty array, as other servers' answers have it."""
    if value == []:
        return []
    return [_tool_call(f"{path}[{index}]", item) for index, item in enumerate(array(path, value, "objects"))]


def _tool_call(path: str, value: Json) -> ToolCall:
    if type(value) is dict and value.get("type") == "custom":
        raise unsupported_value(f"{path}.type", "custom", ("function",))
    # A call that the SDK put together out of chunks has its index still.
    parsers = {"id": _call_id, "type": one_of("function"), "function": _called, "index": _any}
    parsed = members(path, value, parsers, required=("id", "type", "function"))
    return ToolCall(id=parsed["id"], **parsed["function"])


def _called(path: str, value: Json) -> dict[str, Any]:
    # `parsed_arguments` repeats the arguments, in what the SDK's `parse` gives.
    parsers = {"name": identifier, "arguments": string, "parsed_arguments": _any}
    parsed = members(path, value, parsers, required=("name", "arguments"))
    return {"name": parsed["name"], "arguments": parsed["arguments"]}


def _call_id(path: str, value: Json) -> str:
    if not string(path, value):
        raise missing(path)
    return str(value)


def _function_call(path: str, value: Json) -> ToolCall:
    return ToolCall(**members(path, value, {"name": identifier, "arguments": string}, ("name", "arguments")))


def _annotations(path: str, value: Json) -> None:
    """What an answer's text refers to; nothing that a model would be told."""
    if type(value) is not list:
        raise wrong_type(path, "an array of objects", value)


def _audio(path: str, value: Json) -> None:
    raise unsupported(path)


def _any(path: str, value: Json) -> None:
    """Repeats what the message says elsewhere."""


# ---------------------------------------------------------------------------------------------------- roles

_author = named(r"^[^\s<|\\/>]+$")

_INSTRUCTION: Final[Mapping[str, Parser]] = {"role": string, "content": _content("text"), "name": _author}

ROLES: Final[Mapping[str, Mapping[str, Parser]]] = {
    "system": _INSTRUCTION,
    "developer": _INSTRUCTION,
    "user": {"role": string, "content": _content("text", "image_url", *NOT_BUILT), "name": _author},
    "assistant": {
        "role": string,
        "content": _content("text", "refusal"),
        "name": _author,
        "refusal": string,
        "tool_calls": _tool_calls,
        "function_call": _function_call,
        "audio": _audio,
        "annotations": _annotations,
        "parsed": _any,
    },
    "tool": {"role": string, "content": _content("text"), "name": _author, "tool_call_id": string},
    "function": {"role": string, "content": _content("text"), "name": identifier},
}
_role = one_of(*ROLES)
# Besides the content.
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {"tool": ("tool_call_id",), "function": ("name",)}
