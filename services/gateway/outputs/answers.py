"""What a finished choice is to OpenAI's clients: fields of its message, or of the chunks' deltas, and why it ended.

Only for requests that may call tools: the answers to others are their text, and need none of this.
"""

from collections.abc import Iterable
from typing import Any

from services.gateway.outputs.constraints import callable_tools, may_call
from services.gateway.outputs.parsers import parser
from services.gateway.outputs.reading import CallArguments, CallStart, Event, NewId, Text, ToolParser, call_id
from services.gateway.requests.chat import ChatRequest

Fields = dict[str, Any]


class Answers:
    """How the choices of one request are answered."""

    def __init__(self, chat: ChatRequest, tool_format: str, new_id: NewId = call_id) -> None:
        self.legacy = chat.legacy_functions
        self._named = chat.tool_choice.named
        self._format = tool_format
        self._names = frozenset(tool.name for tool in callable_tools(chat))
        self._new_id = new_id

    def stream(self) -> "ChoiceStream":
        """For one choice that is streamed."""
        return ChoiceStream(self, parser(self._format, self._names, self._new_id))

    def message(self, text: str, finish_reason: str) -> tuple[Fields, str]:
        """`content` and perhaps `tool_calls` or `function_call`, and the finish reason, of a whole choice.

        `text` is all that the model wrote, and `finish_reason` why the engine ended: stop or length.
        """
        reader = parser(self._format, self._names, self._new_id)
        content: list[str] = []
        calls: list[Fields] = []
        for event in (*reader.feed(text), *reader.finish()):
            if isinstance(event, Text):
                content.append(event.text)
            elif isinstance(event, CallStart):
                function = {"name": event.name, "arguments": ""}
                calls.append({"id": event.id, "type": "function", "function": function})
            else:
                calls[event.index]["function"]["arguments"] += event.fragment
        fields: Fields = {"content": "".join(content) if content or not calls else None}
        if calls and self.legacy:
            fields["function_call"] = calls[0]["function"]
        elif calls:
            fields["tool_calls"] = calls
        return fields, self.finish_reason(finish_reason, bool(calls))

    def finish_reason(self, engine: str, called: bool) -> str:
        """OpenAI's reason for the engine's; a call of the function that the client named is a plain stop."""
        if engine != "stop" or not called or self._named:
            return engine
        return "function_call" if self.legacy else "tool_calls"


def answers(chat: ChatRequest, tool_format: str, new_id: NewId = call_id) -> Answers | None:
    """None when the choices are plain text."""
    return Answers(chat, tool_format, new_id) if may_call(chat) else None


class ChoiceStream:
    """One choice, as the deltas of its chunks. The role, and the chunk with the finish reason, are the caller's."""

    def __init__(self, owner: Answers, reader: ToolParser) -> None:
        self._owner = owner
        self._reader = reader
        self._called = False

    def feed(self, text: str) -> list[Fields]:
        """The deltas that a piece of the answer brings; none while it may be part of a mark."""
        return self._deltas(self._reader.feed(text))

    def finish(self, finish_reason: str) -> tuple[list[Fields], str]:
        """The last deltas, and OpenAI's finish reason for the engine's."""
        deltas = self._deltas(self._reader.finish())
        return deltas, self._owner.finish_reason(finish_reason, self._called)

    def _deltas(self, events: Iterable[Event]) -> list[Fields]:
        make = self._legacy_delta if self._owner.legacy else self._delta
        return [delta for event in events if (delta := make(event))]

    def _delta(self, event: Event) -> Fields:
        if isinstance(event, Text):
            return {"content": event.text}
        if isinstance(event, CallArguments):
            return {"tool_calls": [{"index": event.index, "function": {"arguments": event.fragment}}]}
        self._called = True
        function = {"name": event.name, "arguments": ""}
        return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}

    def _legacy_delta(self, event: Event) -> Fields | None:
        if isinstance(event, Text):
            return {"content": event.text}
        # The old field has room for one call.
        if event.index > 0:
            return None
        if isinstance(event, CallArguments):
            return {"function_call": {"arguments": event.fragment}}
        self._called = True
        return {"function_call": {"name": event.name, "arguments": ""}}
