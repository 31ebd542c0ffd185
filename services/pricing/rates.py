"""The price of one model: amounts in dollars as people write them, kept as integer nano-dollars.

A rate that is left out is the one that it is a part of: cached input costs what input costs, audio and image tokens
what text tokens cost. What is counted and has no rate at all has no price, and is not served.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, TypeAlias

import msgspec

NANO: Final = 10**9
# A thousand dollars for one token, a million for one image: beyond it the sums of a month do not fit 63 bits.
_MOST_NANODOLLARS: Final = 10**15

Dollars: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
"""Dollars as a decimal, for example "2.50"; a string, since floats are not exact."""


class ImageRate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one image costs; an empty size or quality matches any. The first that matches counts."""

    price: Dollars
    size: str = ""
    quality: str = ""


class Multipliers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a class costs of the default one, for tokens, images, audio and characters; decimals."""

    batch: Dollars = "0.5"
    flex: Dollars = "0.5"
    priority: Dollars = "2"


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Dollars per million tokens, per image, per minute of audio, per million characters, per call of a tool, and per
    GiB and day of storage."""

    free: bool = False
    """The model costs nothing; no other field is set."""

    input: Dollars | None = None
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    output: Dollars | None = None
    input_audio: Dollars | None = None
    input_image: Dollars | None = None
    output_audio: Dollars | None = None
    output_image: Dollars | None = None
    images: tuple[ImageRate, ...] = ()
    audio_minute: Dollars | None = None
    characters: Dollars | None = None
    tools: dict[str, Dollars] = {}
    storage_gib_day: Dollars | None = None
    multipliers: Multipliers = Multipliers()


class RatesError(ValueError):
    """Rates that cannot be used, and why."""


def parse(value: Mapping[str, Any]) -> Rates:
    """Rates of a table of a file or of decoded JSON; numbers are taken for decimals as they are written.

    Raises RatesError.
    """
    try:
        rates = msgspec.convert(_texts(value), Rates)
    except (msgspec.ValidationError, InvalidOperation) as error:
        raise RatesError(str(error)) from error
    check(rates)
    return rates


def decode(data: bytes) -> Rates:
    """Rates as `encode` writes them. Raises RatesError."""
    try:
        return parse(msgspec.json.decode(data))
    except (msgspec.DecodeError, AttributeError) as error:
        raise RatesError(f"not a JSON object: {error}") from error


def encode(rates: Rates) -> bytes:
    return msgspec.json.encode(rates, order="deterministic")


def check(rates: Rates) -> None:
    """Raises RatesError for rates that say nothing, or two things at once."""
    priced = msgspec.structs.replace(rates, free=False) != Rates()
    if rates.free and priced:
        raise RatesError("a model is either free or has rates")
    if not rates.free and not priced:
        raise RatesError("rates are missing; to serve a model for nothing declare it: free = true")
    for name in ("cached_input", "cache_write", "input_audio", "input_image"):
        if getattr(rates, name) is not None and rates.input is None:
            raise RatesError(f"{name} is a part of the input, which has no rate")
    for name in ("output_audio", "output_image"):
        if getattr(rates, name) is not None and rates.output is None:
            raise RatesError(f"{name} is a part of the output, which has no rate")


def nanodollars(dollars: str) -> int:
    """Exact: a rate has at most nine decimals."""
    return int(Decimal(dollars) * NANO)


def dollars(nanodollars: int) -> str:
    """Exact, without trailing zeros."""
    return f"{(Decimal(nanodollars) / NANO).normalize():f}"


def per_mille(multiplier: str) -> int:
    """A multiplier in thousandths, rounded to the nearest."""
    return int((Decimal(multiplier) * 1000).to_integral_value())


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    return value
