"""`response_format`: what form the answer takes, with the schema that it is held to."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from modelplane.tokenizer.v1.tokenizer_pb2 import Message
from services.faults import InvalidRequest
from services.gateway.requests import strict
from services.gateway.requests.values import (
    Json,
    boolean,
    identifier,
    json_schema,
    members,
    missing,
    not_allowed,
    one_of,
    string,
)

KINDS: Final = ("text", "json_object", "json_schema")


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is one of KINDS; the rest says what a json_schema is."""

    kind: str = "text"
    name: str = ""
    description: str = ""
    # Of a json_schema always there, and any object's when the client gave none.
    schema: dict[str, Json] | None = None
    strict: bool = False


TEXT: Final = ResponseFormat()


def parse_response_format(path: str, value: Json) -> ResponseFormat:
    parsed = members(
        path, value, {"type": one_of(*KINDS), "json_schema": lambda path, value: (path, value)}, required=("type",)
    )
    if parsed["type"] != "json_schema":
        if "json_schema" in parsed:
            raise not_allowed(path, f"'{path}.json_schema' is only allowed when '{path}.type' is 'json_schema'.")
        return ResponseFormat(kind=parsed["type"])
    if "json_schema" not in parsed:
        raise missing(f"{path}.json_schema")
    return _schema_format(path, *parsed["json_schema"])


def _schema_format(path: str, inner: str, value: Json) -> ResponseFormat:
    parsed = members(
        inner,
        value,
        {"name": identifier, "description": string, "schema": json_schema, "strict": boolean},
        required=("name",),
    )
    if parsed.get("strict"):
        if "schema" not in parsed:
            raise missing(f"{inner}.schema")
        try:
            strict.check(parsed["schema"])
        except strict.NotStrict as error:
            raise InvalidRequest(
                "invalid_json_schema",
                f"Invalid schema for response_format '{parsed['name']}': {error}",
                param=path,
            ) from None
    return ResponseFormat(kind="json_schema", **{"schema": {"type": "object"}, **parsed})


def check_json_is_asked_for(response_format: ResponseFormat, messages: Iterable[Message]) -> None:
    """A model that is not told to write JSON may, held to it, write white space without end."""
    if response_format.kind == "json_object" and not any("json" in text.lower() for text in _texts(messages)):
        raise not_allowed(
            "messages",
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
        )


def _texts(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        yield message.content
        yield from (part.text for part in message.parts)
