"""What the pipeline runs, whichever endpoint it came from: how to render it, and how to generate.

A chat completion is one run; an endpoint with other fields brings a class of this shape, and the pipeline stays
as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Sampling
from modelplane.tokenizer.v1.tokenizer_pb2 import Prompt, RenderRequest, Tool, ToolChoice
from services.gateway.outputs.constraints import callable_tools, constraint, may_call
from services.gateway.requests.chat import ChatRequest
from services.gateway.requests.messages import ImageReference
from services.gateway.requests.tools import FunctionTool


class Work(Protocol):
    """One run's part of a request."""

    model: str
    """As the client named it."""
    n: int
    """Choices."""
    stream: bool
    max_output_tokens: int | None
    """Per choice, where the client set a bound."""
    service_tier: str
    """auto, default, flex or priority."""
    images: Sequence[ImageReference]
    """One for each image among the parts of the messages to render, in their order."""
    prompt_cache_key: str
    """Requests that share it, and their first tokens, prefer the same replica."""

    def render_request(self, organization_id: str) -> RenderRequest:
        """What the tokenizer is asked."""
        ...

    def sampling(self, prompt: Prompt) -> Sampling:
        """How the engine generates."""
        ...


class ChatWork:
    """A chat completion."""

    __slots__ = ("chat", "images", "max_output_tokens", "model", "n", "prompt_cache_key", "service_tier", "stream")

    def __init__(self, chat: ChatRequest) -> None:
        self.chat = chat
        self.model = chat.model
        self.n = chat.n
        self.stream = chat.stream
        self.images: Sequence[ImageReference] = chat.images
        self.max_output_tokens = chat.max_output_tokens
        self.service_tier = chat.service_tier
        self.prompt_cache_key = chat.prompt_cache_key

    def render_request(self, organization_id: str) -> RenderRequest:
        """With the tools that may be called, and the schema that the answer is held to."""
        chat = self.chat
        request = RenderRequest(
            model=chat.model,
            messages=chat.messages,
            max_output_tokens=chat.max_output_tokens or 0,
            organization_id=organization_id,
            reasoning_effort=chat.reasoning_effort,
            response_schema=_response_schema(chat),
        )
        if may_call(chat):
            request.tools.extend([_tool(tool) for tool in callable_tools(chat)])
            if chat.tool_choice.mode == "required":
                request.tool_choice.CopyFrom(ToolChoice(required=True, names=chat.tool_choice.names))
        return request

    def sampling(self, prompt: Prompt) -> Sampling:
        sampling = self.chat.sampling(prompt.max_output_tokens)
        held = constraint(self.chat, prompt.tool_format)
        if held is not None:
            sampling.constraint.CopyFrom(held)
        return sampling


def _response_schema(chat: ChatRequest) -> str:
    if chat.response_format.kind == "text":
        return ""
    return _json(chat.response_format.schema or {})


def _tool(tool: FunctionTool) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters="" if tool.parameters is None else _json(tool.parameters),
    )


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return msgspec.json.encode(value).decode()
