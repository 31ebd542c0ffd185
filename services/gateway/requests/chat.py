"""Parses the body of a chat completion: OpenAI's fields, checked one by one, with OpenAI's words for what is wrong.

Nothing is ignored in silence. A field is either used, or accepted with the values that ask for nothing beyond
what happens anyway (`NO_EFFECT`), or refused by name; null counts as absent, as in OpenAI's API.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Sampling
from modelplane.tokenizer.v1.tokenizer_pb2 import Message
from services.faults import InvalidRequest
from services.gateway.requests import tools
from services.gateway.requests.formats import TEXT, ResponseFormat, check_json_is_asked_for, parse_response_format
from services.gateway.requests.messages import ImageReference, image_references, parse_messages
from services.gateway.requests.tools import NO_TOOLS, FunctionTool, ToolChoice
from services.gateway.requests.values import (
    INT31,
    INT64,
    Json,
    Parser,
    array,
    boolean,
    decimal,
    integer,
    mapping,
    members,
    missing,
    not_allowed,
    one_of,
    parse_fields,
    string,
    string_up_to,
    too_long,
    unsupported_value,
    wrong_type,
)

MOST_STOPS: Final = 4
MOST_BIASES: Final = 1024
MOST_METADATA: Final = 16


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion that can be run. None, and empty, mean that the client did not say."""

    model: str
    messages: list[Message]
    # One for each image among the parts of the messages, in their order.
    images: tuple[ImageReference, ...] = ()
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    include_obfuscation: bool = True
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    # By token id.
    logit_bias: Mapping[int, float] = {}
    logprobs: bool = False
    top_logprobs: int = 0
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = NO_TOOLS
    parallel_tool_calls: bool = True
    # The client used `functions`: it expects one call at most, as a `function_call`.
    legacy_functions: bool = False
    response_format: ResponseFormat = TEXT
    # One of EFFORTS.
    reasoning_effort: str = ""
    # auto, default, flex or priority.
    service_tier: str = "auto"
    store: bool = False
    metadata: Mapping[str, str] = {}
    user: str = ""
    safety_identifier: str = ""
    prompt_cache_key: str = ""

    def sampling(self, max_output_tokens: int) -> Sampling:
        """For the engine, but for what the answer is held to; `max_output_tokens` is the bound per choice that the
        context window admits.
        """
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
            n=self.n,
            max_output_tokens=max_output_tokens,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias=self.logit_bias or None,
            top_logprobs=self.top_logprobs if self.logprobs else None,
        )


def parse_chat(body: bytes) -> ChatRequest:
    """The request in a body. Raises InvalidRequest."""
    fields, values = parse_fields(body, BUILT, NO_EFFECT, NOT_BUILT, ("model", "messages"))
    if not JOINED.isdisjoint(values):
        _join(values)
    return ChatRequest(images=image_references(fields["messages"]), **values)


# ------------------------------------------------------------------------------------------ fields with a shape


def _model(path: str, value: Json) -> str:
    if value == "":
        raise missing(path)
    return string(path, value)


def _stop(path: str, value: Json) -> tuple[str, ...]:
    """A string, or up to four of them."""
    if type(value) is str:
        value = [value]
    if type(value) is not list:
        raise wrong_type(path, "one of a string or array of strings", value)
    if len(value) > MOST_STOPS:
        raise too_long(path, MOST_STOPS, len(value))
    for index, item in enumerate(value):
        if string(f"{path}[{index}]", item) == "":
            raise InvalidRequest("invalid_value", f"Invalid '{path}': a stop sequence may not be empty.", param=path)
    return tuple(value)


def _stream_options(path: str, value: Json) -> dict[str, bool]:
    return members(path, value, {"include_usage": boolean, "include_obfuscation": boolean})


_bias = decimal(-100, 100)


def _logit_bias(path: str, value: Json) -> dict[int, float]:
    return {
        _token_id(path, key): _bias(f"{path}.{key}", bias) for key, bias in mapping(path, value, MOST_BIASES).items()
    }


def _token_id(path: str, key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10 and str(int(key)) == key and int(key) <= INT31):
        raise not_allowed(path, f"Invalid key in '{path}': {key}. You should only be submitting non-negative integers.")
    return int(key)


_metadata_key, _metadata_value = string_up_to(64), string_up_to(512)


def _metadata(path: str, value: Json) -> dict[str, str]:
    return {
        _metadata_key(path, key): _metadata_value(f"{path}.{key}", text)
        for key, text in mapping(path, value, MOST_METADATA).items()
    }


_tier = one_of("auto", "default", "flex", "scale", "priority", "fast")


def _service_tier(path: str, value: Json) -> str:
    tier = _tier(path, value)
    if tier == "scale":
        raise InvalidRequest(
            "unsupported_value",
            f"Unsupported value: '{path}' is 'scale', but this project has no Scale Tier contract for the model.",
            param=path,
        )
    # Another name of the same.
    return "priority" if tier == "fast" else tier


# -------------------------------------------------------------------------------------- fields that go together


def _join(values: dict[str, Any]) -> None:
    """Turns the values of JOINED into what a ChatRequest has. Raises InvalidRequest for what does not go together."""
    if "max_tokens" in values or "max_completion_tokens" in values:
        values["max_output_tokens"] = _one_bound(values)
    if "stream_options" in values:
        join_stream_options(values)
    if values.get("top_logprobs") and not values.get("logprobs"):
        raise not_allowed(
            "top_logprobs",
            "Invalid value for 'top_logprobs': 'top_logprobs' is only allowed when 'logprobs' is enabled.",
        )
    if "response_format" in values:
        check_json_is_asked_for(values["response_format"], values["messages"])
    if not tools.FIELDS.isdisjoint(values):
        use = tools.tool_use({name: values.pop(name) for name in tools.FIELDS if name in values})
        values.update(msgspec.structs.asdict(use))


def join_stream_options(values: dict[str, Any]) -> None:
    """Puts the members of `stream_options` beside `stream`. Raises InvalidRequest where nothing is streamed."""
    if not values.get("stream"):
        raise InvalidRequest(
            "invalid_value",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    values.update(values.pop("stream_options"))


def _one_bound(values: dict[str, Any]) -> int:
    old, new = values.pop("max_tokens", None), values.pop("max_completion_tokens", None)
    if old is not None and new is not None:
        raise InvalidRequest(
            "invalid_value",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
        )
    bound: int = old if new is None else new
    return bound


JOINED: Final = tools.FIELDS | {
    "max_tokens",
    "max_completion_tokens",
    "stream_options",
    "top_logprobs",
    "response_format",
}

# -------------------------------------------------------------------------------------------------- the tables

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

BUILT: Final[Mapping[str, Parser]] = {
    "model": _model,
    "messages": parse_messages,
    "max_tokens": integer(1, INT31),
    "max_completion_tokens": integer(1, INT31),
    "temperature": decimal(0, 2),
    "top_p": decimal(0, 1),
    "stop": _stop,
    "seed": integer(-INT64, INT64 - 1),
    "n": integer(1, 128),
    "stream": boolean,
    "stream_options": _stream_options,
    "frequency_penalty": decimal(-2, 2),
    "presence_penalty": decimal(-2, 2),
    "logit_bias": _logit_bias,
    "logprobs": boolean,
    "top_logprobs": integer(0, 20),
    "tools": tools.parse_tools,
    "tool_choice": tools.parse_tool_choice,
    "parallel_tool_calls": boolean,
    "functions": tools.parse_functions,
    "function_call": tools.parse_function_call,
    "response_format": parse_response_format,
    "reasoning_effort": one_of(*EFFORTS),
    "service_tier": _service_tier,
    "store": boolean,
    "metadata": _metadata,
    "user": string,
    "safety_identifier": string_up_to(64),
    "prompt_cache_key": string,
}


def _modalities(path: str, value: Json) -> None:
    for index, item in enumerate(array(path, value, "strings")):
        if one_of("text", "audio")(f"{path}[{index}]", item) == "audio":
            raise unsupported_value(path, item, ("text",))


def _verbosity(path: str, value: Json) -> None:
    if one_of("low", "medium", "high")(path, value) != "medium":
        raise unsupported_value(path, value, ("medium",))


def _prompt_cache_options(path: str, value: Json) -> None:
    members(path, value, {"mode": one_of("implicit", "explicit"), "ttl": one_of("30m")})


# Accepted with these values, because they ask for what happens anyway.
NO_EFFECT: Final[Mapping[str, Parser]] = {
    "modalities": _modalities,
    "verbosity": _verbosity,
    # Every prefix is cached, at no price, for as long as there is room: no mark is needed and nothing is promised.
    "prompt_cache_options": _prompt_cache_options,
    "prompt_cache_retention": one_of("in_memory", "24h"),
}

# The other fields of OpenAI's specification.
NOT_BUILT: Final = frozenset(("audio", "moderation", "prediction", "web_search_options"))
