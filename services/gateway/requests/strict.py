"""The subset of JSON Schema that `strict` admits: OpenAI's, but for what our engine would not keep to.

Every object closed and with all of its properties required, no keyword that generation could not be held to, and
sizes that can be compiled in bounded time. The walk keeps its own stack and looks at each part once, so it takes
time in proportion to the schema and no schema exhausts Python's.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

Json = Any
Context = tuple[str, ...]
"""Where in the schema: the keys that lead there."""

LEVELS: Final = 10
# Schemas within the schema: more than the other limits leave room for, but for choices without end.
PARTS: Final = 20_000
PROPERTIES: Final = 5000
# Of the names of properties and definitions, and the strings in enum and const, together.
CHARACTERS: Final = 120_000
ENUM_VALUES: Final = 1000
# An enum of more than so many strings may have so many characters.
LONG_ENUM: Final = 250
LONG_ENUM_CHARACTERS: Final = 15_000

FORMATS: Final = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
DEFINITIONS: Final = ("$defs", "definitions")
# They say nothing about what is valid.
ANNOTATIONS: Final = frozenset(("title", "description", "$schema", "$comment", "examples", "deprecated"))
COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength")
NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
# What may be said about each type.
KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "minItems", "maxItems")),
    "string": frozenset(("pattern", "format", "minLength", "maxLength")),
    "number": frozenset(NUMBERS),
    "integer": frozenset(NUMBERS),
    "boolean": frozenset(),
    "null": frozenset(),
}
# In OpenAI's subset, but ignored by the engine's compiler, as are lookarounds, and lengths beside the SHAPES.
NOT_BUILT: Final = "multipleOf"
LOOKAROUND: Final = re.compile(r"(?<!\\)(?:\\\\)*\(\?<?[=!]")
SHAPES: Final = ("pattern", "format")
VALUES: Final = frozenset(("type", "enum", "const"))


class NotStrict(ValueError):
    """A schema outside the subset; the text says where and why."""


def check(schema: dict[str, Json]) -> None:
    """Raises NotStrict unless `schema` lies in the subset."""
    kind = schema.get("type")
    if kind != "object":
        got = kind if type(kind) is str else None
        raise NotStrict(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'.")
    _Walk(schema).run()


def _outside(context: Context, complaint: str) -> NotStrict:
    return NotStrict(f"In context={context!r}, {complaint}")


class _Place(NamedTuple):
    context: Context
    schema: Json
    # Objects around it.
    level: int
    # The definition that this is, or is a choice of: a reference from here to that definition never ends.
    definition: str | None


class _Walk:
    """One look at a schema, from its root and then from each of its definitions."""

    def __init__(self, root: dict[str, Json]) -> None:
        self._root = root
        # By definition those that it refers to with nothing around the reference.
        self._stands_for: dict[str, list[str]] = {}
        self._parts = 0
        self._properties = 0
        self._characters = 0
        self._enum_values = 0

    def run(self) -> None:
        places = self._definitions()
        places.append(_Place((), self._root, 0, None))
        while places:
            place = places.pop()
            self._parts += 1
            if self._parts > PARTS:
                raise NotStrict(f"more than {PARTS} schemas within the schema.")
            if type(place.schema) is not dict:
                raise _outside(place.context, "schema must be an object.")
            places.extend(reversed(list(self._visit(place))))
        self._check_cycles()

    def _definitions(self) -> list[_Place]:
        places = []
        for keyword in DEFINITIONS:
            found = self._root.get(keyword, {})
            if type(found) is not dict:
                raise _outside((), f"'{keyword}' must be an object.")
            for name, schema in found.items():
                reference = f"#/{keyword}/{name}"
                self._stands_for[reference] = []
                self._count_characters(len(name))
                places.append(_Place((keyword, name), schema, 0, reference))
        places.reverse()
        return places

    def _visit(self, place: _Place) -> Iterator[_Place]:
        context, schema = place.context, place.schema
        if "$ref" in schema:
            self._visit_reference(place)
            return
        if "anyOf" in schema:
            yield from self._visit_choices(place)
            return
        types = _types(context, schema)
        _check_keywords(context, schema, types)
        if "enum" in schema or "const" in schema:
            self._visit_values(context, schema, types)
        if "object" in types:
            yield from self._visit_object(place)
        if "array" in types:
            if "items" not in schema:
                raise _outside(context, "array schema missing items.")
            yield _Place((*context, "items"), schema["items"], place.level, None)

    def _visit_reference(self, place: _Place) -> None:
        context, target = place.context, place.schema["$ref"]
        if beside := sorted(place.schema.keys() - {"$ref"}):
            raise _outside(context, f"$ref cannot have keywords {{{', '.join(map(repr, beside))}}}.")
        if target == "#":
            return
        # Names as they stand: the engine's compiler knows no escapes.
        if type(target) is not str or not target.startswith(("#/$defs/", "#/definitions/")) or target.count("/") != 2:
            raise _outside(context, "reference can only point to definitions defined at the top level of the schema.")
        if target not in self._stands_for:
            raise _outside(context, f"reference '{target}' does not lead to a definition.")
        if place.definition is not None:
            self._stands_for[place.definition].append(target)

    def _visit_choices(self, place: _Place) -> Iterator[_Place]:
        context, choices = place.context, place.schema["anyOf"]
        for keyword in place.schema:
            if keyword == "type" and not context:
                raise _outside(context, "'anyOf' is not permitted.")
            if keyword != "anyOf" and keyword not in ANNOTATIONS:
                raise _outside(context, f"'{keyword}' is not permitted beside 'anyOf'.")
        if type(choices) is not list or not choices:
            raise _outside(context, "'anyOf' must be an array of at least one schema.")
        for index, choice in enumerate(choices):
            yield _Place((*context, "anyOf", str(index)), choice, place.level, place.definition)

    def _visit_object(self, place: _Place) -> Iterator[_Place]:
        context, schema, level = place.context, place.schema, place.level + 1
        if level > LEVELS:
            raise _outside(context, f"{level} levels of nesting exceeds limit of {LEVELS}.")
        if schema.get("additionalProperties") is not False:
            raise _outside(context, "'additionalProperties' is required to be supplied and to be false.")
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if type(properties) is not dict:
            raise _outside(context, "'properties' must be an object.")
        if type(required) is not list or not all(type(name) is str for name in required):
            raise _outside(context, "'required' must be an array of strings.")
        names = set(required)
        for name in properties:
            if name not in names:
                raise _outside(
                    context,
                    "'required' is required to be supplied and to be an array including every key in properties. "
                    f"Missing '{name}'.",
                )
            self._count_characters(len(name))
        if extra := min(names - properties.keys(), default=None):
            raise _outside(context, f"Extra required key '{extra}' supplied.")
        self._properties += len(properties)
        if self._properties > PROPERTIES:
            raise NotStrict(f"{self._properties} object properties exceeds limit of {PROPERTIES}.")
        for name, inner in properties.items():
            yield _Place((*context, "properties", name), inner, level, None)

    def _visit_values(self, context: Context, schema: dict[str, Json], types: tuple[str, ...]) -> None:
        values = schema.get("enum", [])
        if type(values) is not list or ("enum" in schema and not values):
            raise _outside(context, "'enum' must be an array of at least one value.")
        characters = sum(len(value) for value in values if type(value) is str)
        if len(values) > LONG_ENUM and characters > LONG_ENUM_CHARACTERS:
            raise _outside(
                context,
                f"{characters} characters in an enum of more than {LONG_ENUM} values exceeds limit of "
                f"{LONG_ENUM_CHARACTERS}.",
            )
        self._count_characters(characters)
        self._enum_values += len(values)
        if self._enum_values > ENUM_VALUES:
            raise NotStrict(f"{self._enum_values} enum values exceeds limit of {ENUM_VALUES}.")
        for value in values:
            _check_value(context, "enum", value, types)
        if "const" in schema:
            value = schema["const"]
            _check_value(context, "const", value, types)
            self._count_characters(len(value) if type(value) is str else 0)

    def _count_characters(self, characters: int) -> None:
        self._characters += characters
        if self._characters > CHARACTERS:
            raise NotStrict(f"{self._characters} characters in names, enum and const exceeds limit of {CHARACTERS}.")

    def _check_cycles(self) -> None:
        """No definition may stand for itself: what it would admit has no beginning."""
        done: set[str] = set()
        for start in self._stands_for:
            # On the way from `start`, each with what is still to be looked at.
            way: dict[str, Iterator[str]] = {}
            following: str | None = start
            while True:
                if following is not None and following not in done:
                    if following in way:
                        raise NotStrict(f"reference '{following}' leads back to itself.")
                    way[following] = iter(self._stands_for[following])
                elif not way:
                    break
                last = next(reversed(way))
                following = next(way[last], None)
                if following is None:
                    done.add(last)
                    del way[last]


def _types(context: Context, schema: dict[str, Json]) -> tuple[str, ...]:
    """Those that a schema names; none when its values say enough."""
    if "type" not in schema:
        if "enum" in schema or "const" in schema:
            return ()
        raise _outside(context, "schema must have a 'type' key.")
    named = schema["type"]
    types = tuple(named) if type(named) is list else (named,)
    if not types or not all(type(name) is str and name in KEYWORDS for name in types):
        raise _outside(context, f"'type' must be one or more of {', '.join(map(repr, KEYWORDS))}.")
    return types


def _check_keywords(context: Context, schema: dict[str, Json], types: tuple[str, ...]) -> None:
    """Only keywords of the subset, each about one of the schema's types and with a value that it can have."""
    for keyword, value in schema.items():
        if keyword in VALUES or keyword in ANNOTATIONS or (keyword in DEFINITIONS and not context):
            continue
        if keyword == NOT_BUILT:
            raise _outside(context, f"'{keyword}' is not supported yet.")
        if not any(keyword in KEYWORDS[name] for name in types):
            raise _outside(context, f"'{keyword}' is not permitted.")
        if keyword in COUNTS:
            if type(value) is not int or value < 0:
                raise _outside(context, f"'{keyword}' must be an integer of at least 0.")
        elif keyword in NUMBERS:
            if type(value) is not int and type(value) is not float:
                raise _outside(context, f"'{keyword}' must be a number.")
        elif keyword in SHAPES:
            _check_shape(context, schema, keyword, value)


def _check_shape(context: Context, schema: dict[str, Json], keyword: str, value: Json) -> None:
    """Of a string: a pattern, or the name of a format."""
    if type(value) is not str:
        raise _outside(context, f"'{keyword}' must be a string.")
    if keyword == "format" and value not in FORMATS:
        raise _outside(context, f"{value!r} is not a valid format.")
    if keyword == "pattern" and LOOKAROUND.search(value):
        raise _outside(context, "a 'pattern' that looks ahead or behind is not supported yet.")
    for other in ("minLength", "maxLength"):
        if other in schema:
            raise _outside(context, f"'{other}' beside '{keyword}' is not supported yet.")


def _check_value(context: Context, keyword: str, value: Json, types: tuple[str, ...]) -> None:
    if type(value) in (dict, list):
        raise _outside(context, f"{keyword} values must be strings, numbers, booleans or null.")
    if types and not any(_is_of(value, name) for name in types):
        shown = f"'{types[0]}'" if len(types) == 1 else repr(list(types))
        raise _outside(context, f"{keyword} value {value!r} does not validate against {{'type': {shown}}}.")


def _is_of(value: Json, name: str) -> bool:
    """As JSON Schema has it: 1.0 is an integer, and true is no number."""
    kind = type(value)
    if name == "integer":
        return kind is int or (kind is float and value.is_integer())
    if name == "number":
        return kind is int or kind is float
    return kind is {"string": str, "boolean": bool, "null": type(None)}.get(name)
