"""The price book that is shipped beside this module (`default.toml`): public list prices."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import msgspec

from services.pricing.rates import Rates, parse


class _Shipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. Models that answer in text also have what is in `with_text`."""

    with_text: dict[str, Any]
    text: dict[str, dict[str, Any]]
    other: dict[str, dict[str, Any]]


def load() -> Mapping[str, Rates]:
    """Rates by model."""
    book = msgspec.toml.decode(resources.files(__package__).joinpath("default.toml").read_text(), type=_Shipped)
    text = {model: parse({**book.with_text, **rates}) for model, rates in book.text.items()}
    return {**text, **{model: parse(rates) for model, rates in book.other.items()}}
