"""`modelplane prices`: what models cost. For operators: no key can change a price."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from modelplane.ledger.v1.ledger_pb2 import ListPricesRequest, Price, SetPriceRequest
from services.cli.audit import seconds
from services.cli.output import Answer, Row, moment
from services.cli.platform import ACTOR, Noun, Platform, Subcommands
from services.pricing.rates import Multipliers, Rates

# Beside the others, which are dollars for a million or a minute.
NESTED: Final = ("images", "tools", "multipliers")
SINGLE: Final[Sequence[str]] = tuple(
    field.name for field in msgspec.structs.fields(Rates) if field.name not in ("free", *NESTED)
)
CLASSES: Final[Sequence[str]] = Multipliers.__struct_fields__
SHOWN: Final = ("input", "cached_input", "output")


def add_commands(subcommands: Subcommands) -> None:
    """`modelplane prices` and its verbs."""
    noun = Noun(subcommands, "prices", "what models cost")
    list_ = noun.verb("list", "show the prices in force", list_all, of_one_organization=False)
    date = "for example 2026-11-01 or 2026-11-01T12:00, in UTC"
    list_.add_argument("--at", type=seconds, default=0, metavar="DATE", help=f"{date}; default: now")
    list_.add_argument("model", nargs="?", default="", help="default: all")
    about = "show every price that a model has had or will have"
    noun.verb("history", about, history, of_one_organization=False).add_argument(
        "model", nargs="?", default="", help="default: all"
    )
    set_ = noun.verb(
        "set", "give a model a price; it replaces the whole one before", set_price, of_one_organization=False
    )
    free_ = noun.verb("free", "declare that a model costs nothing", set_free, of_one_organization=False)
    for parser in (set_, free_):
        parser.add_argument("model", help="its name, not an alias")
        parser.add_argument("--effective", type=seconds, default=0, metavar="DATE", help=f"{date}; default: at once")
    set_.add_argument(
        "rates",
        nargs="+",
        type=rate,
        metavar="RATE=DOLLARS",
        help=f"for example input=0.15 output=0.60; out of: {', '.join(SINGLE)}, tools.NAME, images, images.SIZE, "
        f"images.SIZE.QUALITY, {', '.join(f'multipliers.{name}' for name in CLASSES)}; see docs/billing.md",
    )


async def list_all(platform: Platform, options: argparse.Namespace) -> Answer:
    found = await platform.ledger.list_prices(ListPricesRequest(model=options.model, at=options.at))
    return [row(price) for price in found.prices]


async def history(platform: Platform, options: argparse.Namespace) -> Answer:
    found = await platform.ledger.list_prices(ListPricesRequest(model=options.model, history=True))
    return [row(price) for price in found.prices]


async def set_price(platform: Platform, options: argparse.Namespace) -> Answer:
    return await _set(platform, options, table(options.rates))


async def set_free(platform: Platform, options: argparse.Namespace) -> Answer:
    return await _set(platform, options, {"free": True})


async def _set(platform: Platform, options: argparse.Namespace, rates: Mapping[str, Any]) -> Answer:
    answer = await platform.ledger.set_price(
        SetPriceRequest(
            model=options.model,
            effective_at=options.effective,
            rates_json=msgspec.json.encode(rates),
            actor=ACTOR,
        )
    )
    return row(answer.price)


def rate(text: str) -> tuple[str, str]:
    """The two sides of `input=0.15`. Raises ArgumentTypeError."""
    name, _, dollars = text.partition("=")
    first, *more = name.split(".")
    fits = (first in SINGLE and not more) or (first == "images" and len(more) <= 2)
    fits = fits or (len(more) >= 1 and (first == "tools" or (first == "multipliers" and more[0] in CLASSES)))
    if not fits or not dollars:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as input=0.15; there are {', '.join(SINGLE)}")
    return name, dollars


def table(rates: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """As services/pricing/rates.py reads them."""
    found: dict[str, Any] = {}
    images: list[dict[str, str]] = []
    for name, dollars in rates:
        first, *more = name.split(".")
        if first == "images":
            images.append({**dict(zip(("size", "quality"), more, strict=False)), "price": dollars})
        elif more:
            found.setdefault(first, {})[".".join(more)] = dollars
        else:
            found[first] = dollars
    # What fits more exactly counts before what fits more.
    images.sort(key=len, reverse=True)
    return {**found, "images": images} if images else found


def row(price: Price) -> Row:
    """Dollars as they are written when they are set; `other` is what seldom differs between models."""
    rates: dict[str, Any] = json.loads(price.rates_json)
    return {
        "model": price.model,
        "free": rates.get("free", False),
        **{name: rates.get(name) for name in SHOWN},
        "other": [f"{name}={dollars}" for name, dollars in _other(rates)],
        "source": price.source,
        "effective": moment(price.effective_at),
    }


def _other(rates: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in rates.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", dollars) for key, dollars in value.items())
        elif isinstance(value, list):
            for image in value:
                parts = [part for part in (name, image.get("size", ""), image.get("quality", "")) if part]
                yield ".".join(parts), image["price"]
        elif name not in (*SHOWN, "free"):
            yield name, value
