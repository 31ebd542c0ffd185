"""Renders conversations with a checkpoint's chat template, character for character as transformers does.

A template comes with the checkpoint and may do only what a sandboxed Jinja template can. Messages and tools come
from clients, and what they say must not act as structure: text such as `<|im_start|>` inside a message would end the
message and begin another in any role. transformers parses it so; OpenAI does not, and neither do we. Every
special token's text inside a message or a tool is cut after its first character, and the pieces around a cut are
encoded apart, so that no piece holds the special token and it becomes ordinary text. Conversations without such text
are one piece, exactly as transformers renders them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Marks a cut on the way through the template: a noncharacter, valid in a string but never part of text. Where a
# client writes it, it cuts too, and is lost.
_CUT = "\ufdd0"

_LOOP_VALUES = frozenset(("first", "last", "index", "index0"))


class RenderError(Exception):
    """The template refuses the conversation; the message is the template's."""


class ChatTemplate:
    """A compiled template. `names` are the tokens it may write (`bos_token`, `eos_token`, …).

    Raises RenderError when the source is no template.
    """

    def __init__(self, source: str, names: Mapping[str, str], special_tokens: Iterable[str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except TemplateSyntaxError as error:
            raise RenderError(f"line {error.lineno}: {error.message}") from error
        self._variables = {
            **self._template.globals,
            **names,
            "documents": None,
            "add_generation_prompt": True,
        }
        self._special = _occurrences(special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """The prompt up to where the assistant's answer begins, in pieces to be encoded apart. Raises RenderError."""
        try:
            if self._special is not None and (tools or _may_hold(messages, self._special)):
                messages, tools = _cut(messages, self._special), _cut(tools, self._special)
            names = {**self._variables, **(variables or {}), "messages": messages, "tools": tools}
            # `Template.render` copies the environment's globals for every call, which costs more than the template.
            context = Context(self._template.environment, names, None, self._template.blocks)
            text = "".join(self._template.root_render_func(context))
        except Exception as error:  # the template is a program, and what it does not take may fail in any way
            raise RenderError(str(error).replace(_CUT, "")) from error
        return _encodable(text).split(_CUT)

    def plain(self, text: str) -> list[str]:
        """A client's text as it stands, in pieces to be encoded apart."""
        return text.split(_CUT) if self._special is None else _cut(text, self._special).split(_CUT)


def _occurrences(special_tokens: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the first character of every special token's text, also of those that overlap.

    A special token of one character cannot be cut and is left alone.
    """
    tokens = sorted({token for token in special_tokens if len(token) > 1})
    return re.compile("|".join(f"{re.escape(t[0])}(?={re.escape(t[1:])})" for t in tokens)) if tokens else None


def _may_hold(messages: Sequence[Mapping[str, Any]], special: re.Pattern[str]) -> bool:
    """Whether there may be anything to cut. Plain messages take one search over all texts instead of one each."""
    try:
        return special.search("\0".join([text for message in messages for text in message.values()])) is not None
    except TypeError:
        return True


def _cut(value: Any, special: re.Pattern[str]) -> Any:
    """The value with every text in it cut, names of a client's own too."""
    if isinstance(value, str):
        return special.sub(rf"\g<0>{_CUT}", value)
    if isinstance(value, dict):
        return {_cut(key, special): _cut(item, special) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, special) for item in value]
    return value


def _encodable(text: str) -> str:
    """Without the halves of characters that JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


class _Environment(ImmutableSandboxedEnvironment):
    """Answers what templates ask most without the sandbox's questions, whose outcome for these is known."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute in obj and not hasattr(dict, attribute):
            return obj[attribute]
        if kind is LoopContext and attribute in _LOOP_VALUES:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


def _environment() -> _Environment:
    """The environment that transformers compiles chat templates in."""
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here they are just rendered."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    # Local time, as in transformers: a template that tells the model today's date means the operator's day.
    return datetime.now().strftime(form)
