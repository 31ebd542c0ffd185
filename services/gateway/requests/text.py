"""Parses the body of a legacy completion: a prompt, or several, that the model continues as they are.

Fields that a chat completion has too are parsed by the same parsers; as there, nothing is ignored in silence.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from services.faults import InvalidRequest
from services.gateway.requests.chat import BUILT as CHAT
from services.gateway.requests.chat import join_stream_options
from services.gateway.requests.values import (
    INT31,
    Json,
    Parser,
    array,
    boolean,
    integer,
    not_allowed,
    parse_fields,
    string,
    within,
    wrong_type,
)

MOST_PROMPTS: Final = 128
# The separator between the documents that a model was trained on: OpenAI's prompt where there is none.
NEW_DOCUMENT: Final = "<|endoftext|>"

Prompt = str | Sequence[int]
"""Text, or token ids; "" begins a new document."""


class TextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A legacy completion that can be run. None, and empty, mean that the client did not say."""

    model: str
    prompt: Sequence[Prompt] = ("",)
    # 0 to have the prompt alone, with its log probabilities.
    max_tokens: int = 16
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    # Choices per prompt that the client gets, and that are generated.
    n: int = 1
    best_of: int = 1
    # Alternatives per token, with the log probabilities of all.
    logprobs: int | None = None
    echo: bool = False
    stream: bool = False
    include_usage: bool = False
    include_obfuscation: bool = True
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    # By token id.
    logit_bias: Mapping[int, float] = {}


def parse_text(body: bytes) -> TextRequest:
    """The request in a body. Raises InvalidRequest."""
    _, values = parse_fields(body, BUILT, NO_EFFECT, (), ("model",))
    if "stream_options" in values:
        join_stream_options(values)
    if values.get("max_tokens") == 0 and not values.get("echo"):
        within("max_tokens", "integer", 0, 1, INT31)
    values.setdefault("best_of", values.get("n", 1))
    request = TextRequest(**values)
    _check_best_of(request)
    return request


def _check_best_of(request: TextRequest) -> None:
    if request.best_of < request.n:
        raise not_allowed(
            "best_of",
            "You requested that the server return more choices than it will generate (HINT: you must set 'n' "
            f"(currently {request.n}) to be at most 'best_of' (currently {request.best_of}), or omit either parameter "
            "if you don't specifically want to use them.)",
        )
    if request.stream and request.best_of > request.n:
        raise not_allowed(
            "best_of", "Invalid value for 'best_of': results of more choices than 'n' cannot be streamed."
        )


# ------------------------------------------------------------------------------------------------- the prompt

KINDS: Final = "one of a string, array of strings, array of integers, or array of arrays of integers"


def _prompts(path: str, value: Json) -> list[Prompt]:
    """One prompt or several, each as text or as token ids."""
    if type(value) is str:
        return [_text(path, value)]
    items = array(path, value, "strings, integers, or arrays of integers")
    kind = type(items[0])
    if kind is int:
        return [_tokens(path, items)]
    if kind is not str and kind is not list:
        raise wrong_type(path, KINDS, value)
    array(path, items, KINDS, longest=MOST_PROMPTS)
    parse: Callable[[str, Json], Prompt] = _text if kind is str else _tokens
    return [parse(f"{path}[{index}]", item) for index, item in enumerate(items)]


def _text(path: str, value: Json) -> str:
    return "" if value == NEW_DOCUMENT else str(string(path, value))


_token = integer(0, INT31)


def _tokens(path: str, value: Json) -> list[int]:
    items = array(path, value, "integers")
    # At a glance: there may be a million.
    if set(map(type, items)) != {int} or min(items) < 0 or max(items) > INT31:
        for index, item in enumerate(items):
            _token(f"{path}[{index}]", item)
    return items


def _suffix(path: str, value: Json) -> None:
    if string(path, value):
        raise InvalidRequest(
            "unsupported_parameter",
            f"Unsupported parameter: '{path}' is not supported with this model, which cannot insert text.",
            param=path,
        )


# ------------------------------------------------------------------------------------------------- the tables

AS_IN_CHAT: Final = (
    "model",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "n",
    "stream",
    "stream_options",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
)

BUILT: Final[Mapping[str, Parser]] = {
    **{name: CHAT[name] for name in AS_IN_CHAT},
    "prompt": _prompts,
    "max_tokens": integer(0, INT31),
    "best_of": integer(1, 20),
    "logprobs": integer(0, 5),
    "echo": boolean,
}

# Accepted with these values, because they ask for nothing that the answer depends on.
NO_EFFECT: Final[Mapping[str, Parser]] = {"suffix": _suffix, "user": string}
