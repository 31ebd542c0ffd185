"""Parses the body of a chat completion: OpenAI's fields, checked one by one, with OpenAI's words for what is wrong.

Nothing is ignored in silence. A field is either built, or accepted with the values that ask for nothing beyond
what happens anyway (`NO_EFFECT`), or refused by name; null counts as absent, as in OpenAI's API.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from modelplane.chat_inference.v1.chat_inference_pb2 import Sampling
from modelplane.tokenizer.v1.tokenizer_pb2 import Message
from services.faults import Fault, InvalidRequest

INT31: Final = 2**31 - 1
INT64: Final = 2**63

Json = Any
"""A decoded JSON value."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat completion that can be run. None means that the client did not say."""

    model: str
    messages: list[Message]
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    stream: bool = False
    include_usage: bool = False

    def sampling(self, max_output_tokens: int) -> Sampling:
        """For the engine; `max_output_tokens` is the bound per choice that the context window admits."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            seed=self.seed,
            n=self.n,
            max_output_tokens=max_output_tokens,
        )


def parse_chat(body: bytes) -> ChatRequest:
    """The request in a body. Raises InvalidRequest."""
    fields = _object(body)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if built := BUILT.get(name):
            values[name] = built(name, value)
        elif accepted := NO_EFFECT.get(name):
            if not accepted(value):
                raise _unsupported(name, f"Unsupported value: '{name}' does not support this value yet.")
        elif name in NOT_BUILT:
            raise _unsupported(name, f"Unsupported parameter: '{name}' is not supported yet.")
        else:
            raise InvalidRequest("unknown_parameter", f"Unrecognized request argument supplied: {name}", param=name)
    for name in ("model", "messages"):
        if name not in values:
            raise _missing(name)
    return ChatRequest(
        max_output_tokens=_one_bound(values),
        include_usage=_include_usage(values),
        **values,
    )


def _object(body: bytes) -> dict[str, Json]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(
            "invalid_json",
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your "
            "HTTP library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)",
        ) from None
    if not isinstance(fields, dict):
        raise InvalidRequest(
            "invalid_type", f"Invalid type for the request body: expected an object, but got {_kind(fields)} instead."
        )
    return fields


def _one_bound(values: dict[str, Any]) -> int | None:
    old, new = values.pop("max_tokens", None), values.pop("max_completion_tokens", None)
    if old is not None and new is not None:
        raise InvalidRequest(
            "invalid_value",
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
        )
    bound: int | None = old if new is None else new
    return bound


def _include_usage(values: dict[str, Any]) -> bool:
    options: bool | None = values.pop("stream_options", None)
    if options is not None and not values.get("stream", False):
        raise InvalidRequest(
            "invalid_value",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return bool(options)


# ------------------------------------------------------------------------------------------- kinds of values

KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _kind(value: Json) -> str:
    return KINDS[type(value)]


def _wrong_type(name: str, expected: str, value: Json) -> Fault:
    return InvalidRequest(
        "invalid_type",
        f"Invalid type for '{name}': expected {expected}, but got {_kind(value)} instead.",
        param=name,
    )


def _missing(name: str) -> Fault:
    return InvalidRequest("missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)


def _unsupported(name: str, message: str) -> Fault:
    return InvalidRequest("unsupported_parameter", message, param=name)


def _within(name: str, kind: str, value: float, low: int, high: int) -> None:
    if value < low:
        raise InvalidRequest(
            f"{kind}_below_min_value",
            f"Invalid '{name}': {kind} below minimum value. Expected a value >= {low:d}, but got {value} instead.",
            param=name,
        )
    if value > high:
        raise InvalidRequest(
            f"{kind}_above_max_value",
            f"Invalid '{name}': {kind} above maximum value. Expected a value <= {high:d}, but got {value} instead.",
            param=name,
        )


def _decimal(low: int, high: int) -> Callable[[str, Json], float]:
    def parse(name: str, value: Json) -> float:
        if type(value) is not float and type(value) is not int:
            raise _wrong_type(name, "a decimal", value)
        number = float(value) if abs(value) < INT64 else value
        _within(name, "decimal", number, low, high)
        return float(number)

    return parse


def _integer(low: int, high: int) -> Callable[[str, Json], int]:
    def parse(name: str, value: Json) -> int:
        if type(value) is not int:
            raise _wrong_type(name, "an integer", value)
        _within(name, "integer", value, low, high)
        return value

    return parse


def _boolean(name: str, value: Json) -> bool:
    if type(value) is not bool:
        raise _wrong_type(name, "a boolean", value)
    return value


def _string(name: str, value: Json) -> str:
    if type(value) is not str:
        raise _wrong_type(name, "a string", value)
    return value


def _model(name: str, value: Json) -> str:
    if value == "":
        raise _missing(name)
    return _string(name, value)


# --------------------------------------------------------------------------------------- fields with a shape


def _stop(name: str, value: Json) -> tuple[str, ...]:
    """A string, or up to four of them."""
    if type(value) is str:
        value = [value]
    if type(value) is not list:
        raise _wrong_type(name, "one of a string or array of strings", value)
    if len(value) > 4:
        raise InvalidRequest(
            "array_above_max_length",
            f"Invalid '{name}': array too long. Expected an array with maximum length 4, "
            f"but got an array with length {len(value)} instead.",
            param=name,
        )
    for index, item in enumerate(value):
        if _string(f"{name}[{index}]", item) == "":
            raise InvalidRequest("invalid_value", f"Invalid '{name}': a stop sequence may not be empty.", param=name)
    return tuple(value)


def _stream_options(name: str, value: Json) -> bool:
    """Gives `include_usage`, the one option that is built."""
    if type(value) is not dict:
        raise _wrong_type(name, "an object", value)
    include_usage = False
    for option, setting in value.items():
        path = f"{name}.{option}"
        if option not in ("include_usage", "include_obfuscation"):
            raise InvalidRequest("unknown_parameter", f"Unknown parameter: '{path}'.", param=path)
        if setting is None:
            continue
        wanted = _boolean(path, setting)
        if option == "include_usage":
            include_usage = wanted
        elif wanted:
            raise _unsupported(path, f"Unsupported value: '{path}' does not support true yet.")
    return include_usage


ROLES: Final = ("system", "developer", "user", "assistant")
# Fields of messages that come with features to be built; a client that sends an answer back sends them empty.
MESSAGE_NOT_BUILT: Final = frozenset(
    ("refusal", "audio", "tool_calls", "tool_call_id", "function_call", "annotations", "reasoning_content")
)


def _messages(name: str, value: Json) -> list[Message]:
    if type(value) is not list:
        raise _wrong_type(name, "an array of objects", value)
    if not value:
        raise InvalidRequest(
            "empty_array",
            f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param=name,
        )
    return [_message(f"{name}[{index}]", item) for index, item in enumerate(value)]


def _message(path: str, value: Json) -> Message:
    if type(value) is not dict:
        raise _wrong_type(path, "an object", value)
    for field, setting in value.items():
        if field in ("role", "content", "name") or setting is None:
            continue
        inner = f"{path}.{field}"
        if field not in MESSAGE_NOT_BUILT:
            raise InvalidRequest("unknown_parameter", f"Unknown parameter: '{inner}'.", param=inner)
        if setting not in ([], ""):
            raise _unsupported(inner, f"Unsupported parameter: '{inner}' is not supported yet.")
    role, content, author = value.get("role"), value.get("content"), value.get("name")
    if role not in ROLES:
        raise _bad_role(f"{path}.role", role)
    if type(content) is not str:
        content = _content(f"{path}.content", content)
    return Message(role=role, content=content, name="" if author is None else _string(f"{path}.name", author))


def _bad_role(path: str, role: Json) -> Fault:
    if role is None:
        return _missing(path)
    if type(role) is not str:
        return _wrong_type(path, "a string", role)
    if role in ("tool", "function"):
        return _unsupported(path, f"Unsupported value: '{path}' does not support '{role}' yet.")
    known = ", ".join(f"'{name}'" for name in ROLES)
    return InvalidRequest("invalid_value", f"Invalid value: '{role}'. Supported values are: {known}.", param=path)


def _content(path: str, value: Json) -> str:
    """The text of content that is not a plain string: parts, joined by line breaks."""
    if value is None:
        raise _missing(path)
    if type(value) is not list:
        raise _wrong_type(path, "one of a string or array of objects", value)
    if not value:
        raise InvalidRequest(
            "empty_array",
            f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param=path,
        )
    return "\n".join(_text_part(f"{path}[{index}]", part) for index, part in enumerate(value))


def _text_part(path: str, part: Json) -> str:
    if type(part) is not dict:
        raise _wrong_type(path, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise _missing(f"{path}.type")
    if kind in ("image_url", "input_audio", "file", "refusal"):
        raise _unsupported(f"{path}.type", f"Unsupported value: '{path}.type' does not support '{kind}' yet.")
    if kind != "text":
        raise InvalidRequest(
            "invalid_value", f"Invalid value: '{kind}'. Supported values are: 'text'.", param=f"{path}.type"
        )
    for field, setting in part.items():
        if field not in ("type", "text") and setting is not None:
            raise _unsupported(f"{path}.{field}", f"Unsupported parameter: '{path}.{field}' is not supported yet.")
    if part.get("text") is None:
        raise _missing(f"{path}.text")
    return _string(f"{path}.text", part["text"])


# ------------------------------------------------------------------------------------------------ the tables

BUILT: Final[Mapping[str, Callable[[str, Json], Any]]] = {
    "model": _model,
    "messages": _messages,
    "max_tokens": _integer(1, INT31),
    "max_completion_tokens": _integer(1, INT31),
    "temperature": _decimal(0, 2),
    "top_p": _decimal(0, 1),
    "stop": _stop,
    "seed": _integer(-INT64, INT64 - 1),
    "n": _integer(1, 128),
    "stream": _boolean,
    "stream_options": _stream_options,
}


def _zero(value: Json) -> bool:
    return type(value) in (int, float) and value == 0


def _false(value: Json) -> bool:
    return value is False


def _text(value: Json) -> bool:
    return type(value) is str


# Accepted with these values, because they ask for what happens anyway.
NO_EFFECT: Final[Mapping[str, Callable[[Json], bool]]] = {
    # Names of end users, for abuse reports: nothing is reported to anybody.
    "user": _text,
    "safety_identifier": _text,
    # Their defaults.
    "frequency_penalty": _zero,
    "presence_penalty": _zero,
    "logit_bias": lambda value: value == {},
    "logprobs": _false,
    "top_logprobs": _zero,
    "store": _false,
    "metadata": lambda value: value == {},
    "modalities": lambda value: value == ["text"],
    "response_format": lambda value: value == {"type": "text"},
    "service_tier": lambda value: value in ("auto", "default"),
    # Without tools there is nothing to choose or to call.
    "tool_choice": lambda value: value == "none",
    "function_call": lambda value: value == "none",
    "parallel_tool_calls": lambda value: type(value) is bool,
}

# The other fields of OpenAI's specification.
NOT_BUILT: Final = frozenset(
    (
        "audio",
        "functions",
        "moderation",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "tools",
        "verbosity",
        "web_search_options",
    )
)
