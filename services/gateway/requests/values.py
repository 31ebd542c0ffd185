"""The kinds of values that a body is made of, and the faults for what is wrong with one, in OpenAI's words.

A parser takes the path of a value and the value, and gives what the platform works with or raises InvalidRequest
with the path as `param`. A fault quotes nothing but strings and numbers: a body may nest as deep as it likes.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec

from services.faults import Fault, InvalidRequest

INT31: Final = 2**31 - 1
INT64: Final = 2**63
NAME_LENGTH: Final = 64
# Levels of objects and arrays in a JSON schema. What comes after us walks schemas by recursion.
SCHEMA_DEPTH: Final = 100

Json = Any
"""A decoded JSON value."""

Parser = Callable[[str, Json], Any]

T = TypeVar("T")

KINDS: Final[Mapping[type, str]] = {
    str: "a string",
    int: "an integer",
    float: "a decimal",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def body_object(body: bytes) -> dict[str, Json]:
    """The fields of a request's body. Raises InvalidRequest for what is not a JSON object."""
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
            "invalid_type",
            f"Invalid type for the request body: expected an object, but got {KINDS[type(fields)]} instead.",
        )
    return fields


# ---------------------------------------------------------------------------------------------------- faults


def wrong_type(path: str, expected: str, value: Json) -> Fault:
    return InvalidRequest(
        "invalid_type",
        f"Invalid type for '{path}': expected {expected}, but got {KINDS[type(value)]} instead.",
        param=path,
    )


def missing(path: str) -> Fault:
    return InvalidRequest("missing_required_parameter", f"Missing required parameter: '{path}'.", param=path)


def unknown(path: str) -> Fault:
    return InvalidRequest("unknown_parameter", f"Unknown parameter: '{path}'.", param=path)


def unsupported(path: str) -> Fault:
    """For a parameter that OpenAI's API has and this platform does not."""
    return InvalidRequest("unsupported_parameter", f"Unsupported parameter: '{path}' is not supported yet.", param=path)


def unsupported_value(path: str, value: str, supported: Collection[str]) -> Fault:
    """For a value that OpenAI's API has and this platform does not."""
    return InvalidRequest(
        "unsupported_value",
        f"Unsupported value: '{path}' does not support '{value}' yet. Supported values are: {listed(supported)}.",
        param=path,
    )


def not_allowed(path: str, message: str) -> Fault:
    """For fields that do not go together; OpenAI's API gives these faults no code."""
    return InvalidRequest("invalid_parameter", message, param=path)


def listed(names: Collection[str]) -> str:
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > 2:
        quoted[-1] = f"and {quoted[-1]}"
        return ", ".join(quoted)
    return " and ".join(quoted)


# --------------------------------------------------------------------------------------------------- scalars


def within(path: str, kind: str, value: float, low: int, high: int) -> None:
    """Raises InvalidRequest for a number outside of `low` to `high`; `kind` is integer or decimal."""
    if value < low:
        raise InvalidRequest(
            f"{kind}_below_min_value",
            f"Invalid '{path}': {kind} below minimum value. Expected a value >= {low:d}, but got {value} instead.",
            param=path,
        )
    if value > high:
        raise InvalidRequest(
            f"{kind}_above_max_value",
            f"Invalid '{path}': {kind} above maximum value. Expected a value <= {high:d}, but got {value} instead.",
            param=path,
        )


def decimal(low: int, high: int) -> Callable[[str, Json], float]:
    def parse(path: str, value: Json) -> float:
        if type(value) is not float and type(value) is not int:
            raise wrong_type(path, "a decimal", value)
        number = float(value) if abs(value) < INT64 else value
        within(path, "decimal", number, low, high)
        return float(number)

    return parse


def integer(low: int, high: int) -> Callable[[str, Json], int]:
    def parse(path: str, value: Json) -> int:
        if type(value) is not int:
            raise wrong_type(path, "an integer", value)
        within(path, "integer", value, low, high)
        return value

    return parse


def boolean(path: str, value: Json) -> bool:
    if type(value) is not bool:
        raise wrong_type(path, "a boolean", value)
    return value


def string(path: str, value: Json) -> str:
    if type(value) is not str:
        raise wrong_type(path, "a string", value)
    return value


def string_up_to(length: int) -> Callable[[str, Json], str]:
    """A string of at most `length` characters."""

    def parse(path: str, value: Json) -> str:
        if len(string(path, value)) > length:
            raise InvalidRequest(
                "string_above_max_length",
                f"Invalid '{path}': string too long. Expected a string with maximum length {length}, "
                f"but got a string with length {len(value)} instead.",
                param=path,
            )
        return str(value)

    return parse


def named(pattern: str) -> Callable[[str, Json], str]:
    """A name of 1 to 64 characters in the form of `pattern`, a regular expression for all of it."""
    matches = re.compile(pattern.removesuffix("$") + r"\Z").match
    bounded = string_up_to(NAME_LENGTH)

    def parse(path: str, value: Json) -> str:
        name = bounded(path, value)
        if not name:
            raise InvalidRequest(
                "empty_string",
                f"Invalid '{path}': empty string. Expected a string with minimum length 1, "
                "but got an empty string instead.",
                param=path,
            )
        if not matches(name):
            raise InvalidRequest(
                "invalid_value",
                f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern "
                f"'{pattern}'.",
                param=path,
            )
        return name

    return parse


identifier = named("^[a-zA-Z0-9_-]+$")


def one_of(*choices: str) -> Callable[[str, Json], str]:
    def parse(path: str, value: Json) -> str:
        if string(path, value) not in choices:
            raise InvalidRequest(
                "invalid_value", f"Invalid value: '{value}'. Supported values are: {listed(choices)}.", param=path
            )
        return str(value)

    return parse


# -------------------------------------------------------------------------------------------------- composed


def array(path: str, value: Json, of: str, *, longest: int | None = None) -> list[Json]:
    """An array with at least one item."""
    if type(value) is not list:
        raise wrong_type(path, f"an array of {of}", value)
    if not value:
        raise InvalidRequest(
            "empty_array",
            f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param=path,
        )
    if longest is not None and len(value) > longest:
        raise too_long(path, longest, len(value))
    return value


def too_long(path: str, longest: int, length: int) -> Fault:
    return InvalidRequest(
        "array_above_max_length",
        f"Invalid '{path}': array too long. Expected an array with maximum length {longest}, "
        f"but got an array with length {length} instead.",
        param=path,
    )


def strings(longest: int) -> Callable[[str, Json], list[str]]:
    """An array of strings, perhaps an empty one."""

    def parse(path: str, value: Json) -> list[str]:
        if type(value) is not list:
            raise wrong_type(path, "an array of strings", value)
        if len(value) > longest:
            raise too_long(path, longest, len(value))
        return [string(f"{path}[{index}]", item) for index, item in enumerate(value)]

    return parse


def mapping(path: str, value: Json, most: int) -> dict[str, Json]:
    """An object whose keys the client chooses."""
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    if len(value) > most:
        raise InvalidRequest(
            "object_above_max_properties",
            f"Invalid '{path}': too many properties. Expected an object with at most {most} properties, "
            f"but got an object with {len(value)} properties instead.",
            param=path,
        )
    return value


def members(path: str, value: Json, parsers: Mapping[str, Parser], required: Collection[str] = ()) -> dict[str, Any]:
    """An object with fields that are known, those that are null left out."""
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    parsed: dict[str, Any] = {}
    for name, member in value.items():
        if member is None:
            continue
        if name not in parsers:
            raise unknown(f"{path}.{name}")
        parsed[name] = parsers[name](f"{path}.{name}", member)
    for name in required:
        if name not in parsed:
            raise missing(f"{path}.{name}")
    return parsed


def json_schema(path: str, value: Json) -> dict[str, Json]:
    """A JSON schema, of which no more is known than that it is an object and does not nest too deep."""
    if type(value) is not dict:
        raise wrong_type(path, "an object", value)
    level: list[Json] = [value]
    for _ in range(SCHEMA_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return value
    raise not_allowed(path, f"Invalid '{path}': schema nested too deep. Expected at most {SCHEMA_DEPTH} levels.")


def parse_fields(
    body: bytes,
    built: Mapping[str, Parser],
    no_effect: Mapping[str, Parser],
    not_built: Collection[str],
    required: Collection[str],
) -> tuple[dict[str, Json], dict[str, Any]]:
    """The members of a body, as they came and, those that are `built`, parsed; null counts as absent.

    Members with `no_effect` are only checked. Raises InvalidRequest, also for a member of `not_built` or of no table.
    """
    fields = body_object(body)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        if parse := built.get(name):
            values[name] = parse(name, value)
        elif check := no_effect.get(name):
            check(name, value)
        elif name in not_built:
            raise unsupported(name)
        else:
            raise InvalidRequest("unknown_parameter", f"Unrecognized request argument supplied: {name}", param=name)
    for name in required:
        if name not in values:
            raise missing(name)
    return fields, values
