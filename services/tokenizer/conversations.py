"""Puts a request into the terms of its model's chat template: messages, tools and what the model is told in words.

A model that was trained to call tools has a template that takes them, and gets them as transformers passes them on.
For any other model Modelplane supplies the form: a system text describes the tools and how to call them, in the
manner of the Hermes models, and earlier calls and their results stand in the texts of messages.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from modelplane.tokenizer.v1 import tokenizer_pb2
from services.faults import InvalidRequest

# How a model without a format of its own is told to call tools.
SUPPLIED_FORMAT = "hermes"

_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
_ANY_OBJECT = "{}"
_MISTRAL_ID_CHARACTERS = 9


class Manners(NamedTuple):
    """What a model's template understands."""

    tool_format: str
    """The form in which its model was trained to call tools; empty when it was not."""

    system: bool
    """It takes a system message."""

    developer: bool
    """It knows the role; others get a system message instead."""

    parts: bool = False
    """It takes every content as a list of parts; others take texts, and lists only where there are images."""


class Conversation(NamedTuple):
    """What a template is given. `tools` is None where there are none, or where they are told in words."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None


def conversation(request: tokenizer_pb2.RenderRequest, manners: Manners) -> Conversation:
    """Messages and tools as the template takes them. Raises invalid_value for parameters that are no JSON."""
    messages = _messages(request.messages, manners)
    tools = [_tool(tool) for tool in request.tools] or None
    words = []
    if tools and not manners.tool_format:
        words.append(_tools_in_words(tools, request.tool_choice))
        tools = None
    if schema := request.response_schema:
        words.append(_schema_in_words(schema))
    if words:
        _tell(messages, "\n\n".join(words), manners)
    if manners.parts:
        for message in messages:
            if type(message["content"]) is str:
                message["content"] = [_text_part(message["content"])]
    return Conversation(messages, tools)


def _messages(messages: Iterable[tokenizer_pb2.Message], manners: Manners) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    answering = False
    for message in messages:
        role = message.role
        # A name only where there is one, because templates ask whether it is defined.
        fields: dict[str, Any] = {"role": role, "content": message.content}
        if message.parts:
            fields["content"] = [_part(part) for part in message.parts]
        if name := message.name:
            fields["name"] = name
        if role == "tool":
            if manners.tool_format:
                fields["tool_call_id"] = _call_id(message.tool_call_id, manners)
            else:
                response = f"<tool_response>\n{message.content}\n</tool_response>"
                if answering:
                    # Templates may insist that user and assistant take turns.
                    found[-1]["content"] += f"\n{response}"
                    continue
                fields = {"role": "user", "content": response}
        elif role == "assistant":
            if message.tool_calls:
                _add_calls(fields, message.tool_calls, manners)
        elif role == "developer" and not manners.developer:
            fields["role"] = "system"
        answering = role == "tool"
        found.append(fields)
    return found


def _part(part: tokenizer_pb2.Part) -> dict[str, Any]:
    return {"type": "image"} if part.HasField("image") else _text_part(part.text)


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _add_calls(fields: dict[str, Any], calls: Iterable[tokenizer_pb2.ToolCall], manners: Manners) -> None:
    called = [(call.id, {"name": call.name, "arguments": _arguments(call.arguments)}) for call in calls]
    if manners.tool_format:
        fields["tool_calls"] = [
            {"id": _call_id(call_id, manners), "type": "function", "function": function} for call_id, function in called
        ]
        return
    texts = [f"<tool_call>\n{_text(function)}\n</tool_call>" for _, function in called]
    fields["content"] = "\n".join([fields["content"], *texts] if fields["content"] else texts)


def _arguments(text: str) -> Any:
    """The object that the text says, as templates want it; the text itself when it says none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _call_id(call_id: str, manners: Manners) -> str:
    """Mistral's templates take ids of nine letters and digits only."""
    if manners.tool_format != "mistral":
        return call_id
    if len(call_id) == _MISTRAL_ID_CHARACTERS and call_id.isascii() and call_id.isalnum():
        return call_id
    return blake2b(call_id.encode()).hexdigest()[:_MISTRAL_ID_CHARACTERS]


def _tool(tool: tokenizer_pb2.Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    try:
        function["parameters"] = json.loads(tool.parameters or '{"type": "object", "properties": {}}')
    except (ValueError, RecursionError) as error:
        message = f"Invalid parameters of the function '{tool.name}': they are no JSON schema."
        raise InvalidRequest("invalid_value", message, param="tools") from error
    return {"type": "function", "function": function}


def _tools_in_words(tools: Sequence[dict[str, Any]], choice: tokenizer_pb2.ToolChoice) -> str:
    text = _TOOLS.format(tools="\n".join(map(_text, tools)))
    names = ", ".join(choice.names)
    if len(choice.names) == 1 and choice.required:
        return f"{text}\n\nNow you must call the function {names}."
    if names:
        return f"{text}\n\nNow you {'must' if choice.required else 'may'} call only functions of these: {names}."
    return f"{text}\n\nNow you must call at least one function." if choice.required else text


def _schema_in_words(schema: str) -> str:
    if schema == _ANY_OBJECT:
        return "Answer with a JSON object."
    return f"Answer with a JSON object that follows this JSON schema:\n{schema}"


def _tell(messages: list[dict[str, Any]], words: str, manners: Manners) -> None:
    """Puts the words before what the system says, or before the first message where the template knows no system."""
    first = messages[0]
    if manners.system and first["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": words})
    elif type(first["content"]) is list:
        first["content"].insert(0, _text_part(f"{words}\n\n"))
    else:
        first["content"] = f"{words}\n\n{first['content']}" if first["content"] else words


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
