"""The one request that every system under test gets, and what counts as a right answer to it.

Both sides of a comparison must do the same work, so the prompt, the number of tokens and the check live here:
the fake server answers by them, the load generator accepts nothing else, and no response is counted unchecked.
"""

from typing import Final

import msgspec

TOKENS = 50
"""Tokens of every completion, and content events of every stream."""

MAX_TOKENS = 64

NUMBER = b"000000000000"
"""Stands in the last message, for a number that no other request has."""

UPSTREAM_KEY = "sk-fake-upstream"
"""What a proxy must present to the fake server: not the key that the client presents to the proxy."""

MESSAGES: Final = [
    {
        "role": "system",
        "content": "You are a careful assistant of a hardware shop. Answer in short, plain words.",
    },
    {
        "role": "user",
        "content": "Which screws hold a shelf of 20 kg on a wall of old brick, and how many do I need?",
    },
    {"role": "assistant", "content": "Use four 8 mm plugs with 6 x 60 mm screws, two for each bracket."},
    {
        "role": "user",
        "content": f"And if the wall behind the plaster is wood? My customer number is {NUMBER.decode()}.",
    },
]


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    message: Delta | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class Answer(msgspec.Struct):
    """A chat completion or one chunk of it, as far as the check looks."""

    choices: list[Choice]
    usage: Usage | None = None


class WrongAnswer(Exception):
    """A response that must not be counted, with the reason."""


_decoder = msgspec.json.Decoder(Answer)


def request_body(model: str, *, stream: bool) -> bytes:
    """The JSON body. Streams ask for usage, so that no proxy has to count tokens that the upstream counted.

    Whoever sends it replaces NUMBER: as in a real conversation the last message is new and those before it are not.
    """
    body: dict[str, object] = {"model": model, "messages": MESSAGES, "max_tokens": MAX_TOKENS}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def check(status: int, body: bytes, *, stream: bool) -> str:
    """The completion's text. Raises WrongAnswer unless it is a 200 with all of its tokens, events and usage."""
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:300]!r}")
    try:
        text, usage = _stream(body) if stream else _plain(body)
    except (msgspec.MsgspecError, IndexError) as error:
        raise WrongAnswer(f"{error}: {body[:300]!r}") from error
    if usage is None or usage.completion_tokens != TOKENS:
        raise WrongAnswer(f"usage {usage}, expected {TOKENS} completion tokens")
    return text


def _plain(body: bytes) -> tuple[str, Usage | None]:
    answer = _decoder.decode(body)
    message = answer.choices[0].message
    if message is None or not message.content or answer.choices[0].finish_reason != "stop":
        raise WrongAnswer(f"no finished message: {body[:300]!r}")
    return message.content, answer.usage


def _stream(body: bytes) -> tuple[str, Usage | None]:
    events = [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")]
    if not events or events.pop() != b"[DONE]":
        raise WrongAnswer(f"no [DONE] at the end: {body[-300:]!r}")
    parts: list[str] = []
    finished = None
    usage = None
    for event in events:
        chunk = _decoder.decode(event)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            finished = choice.finish_reason or finished
            if choice.delta is not None and choice.delta.content:
                parts.append(choice.delta.content)
    if len(parts) != TOKENS or finished != "stop":
        raise WrongAnswer(f"{len(parts)} content events, finish_reason {finished!r}: {body[-300:]!r}")
    return "".join(parts), usage
