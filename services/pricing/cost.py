"""What one usage record costs: lines that are booked, shown and added up as they are.

    line         counts                                         amount
    input        prompt tokens that nothing below counts        rate per million
    cached_input, cache_write, input_audio, input_image         each its part of the prompt
    output       generated tokens, the thinking included        rate per million
    output_audio, output_image                                  each its part of the answer
    image        images made                                    by size and quality
    audio        milliseconds of audio transcribed              rate per minute
    characters   characters spoken                              rate per million
    tool:<name>  calls of a tool                                rate per call
    storage      byte-seconds                                   rate per GiB and day
    discount     batch or flex: what they take off              below 0
    premium      priority: what it adds

Each line is rounded once, half up, to a whole nano-dollar. The classes multiply everything but tools and storage; a
request of a batch has the batch's multiplier, whatever its class.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from modelplane.usage.v1.usage_pb2 import Usage
from services.pricing.rates import Rates, nanodollars, per_mille

MILLION: Final = 1_000_000
MINUTE_MS: Final = 60_000
GIB_DAY: Final = 2**30 * 86_400
CLASSES: Final = ("batch", "flex", "priority")


class Line(NamedTuple):
    """A part of what a request costs."""

    name: str
    quantity: int
    """In the line's own unit; 0 for discount and premium."""

    nanodollars: int


class Unpriced(Exception):
    """Something was used that has no rate; its name."""


class Price:
    """Rates made ready for counting: integers, and what is left out filled in."""

    __slots__ = (
        "audio_minute",
        "cache_write",
        "cached_input",
        "characters",
        "free",
        "id",
        "images",
        "input",
        "input_audio",
        "input_image",
        "multipliers",
        "output",
        "output_audio",
        "output_image",
        "storage",
        "tools",
    )

    def __init__(self, price_id: int, rates: Rates) -> None:
        def rate(value: str | None, otherwise: int | None = None) -> int | None:
            return otherwise if value is None else nanodollars(value)

        self.id = price_id
        self.free = rates.free
        self.input = rate(rates.input)
        self.cached_input = rate(rates.cached_input, self.input)
        self.cache_write = rate(rates.cache_write, self.input)
        self.input_audio = rate(rates.input_audio, self.input)
        self.input_image = rate(rates.input_image, self.input)
        self.output = rate(rates.output)
        self.output_audio = rate(rates.output_audio, self.output)
        self.output_image = rate(rates.output_image, self.output)
        self.images = [(image.size, image.quality, nanodollars(image.price)) for image in rates.images]
        self.audio_minute = rate(rates.audio_minute)
        self.characters = rate(rates.characters)
        self.tools = {tool: nanodollars(price) for tool, price in rates.tools.items()}
        self.storage = rate(rates.storage_gib_day)
        self.multipliers = {name: per_mille(getattr(rates.multipliers, name)) for name in CLASSES}

    def image(self, size: str, quality: str) -> int | None:
        """What an image costs."""
        for of_size, of_quality, price in self.images:
            if of_size in ("", size) and of_quality in ("", quality):
                return price
        return None


def lines(usage: Usage, price: Price) -> list[Line]:
    """The lines of a record, without those of 0 nano-dollars; none for a free model. Raises Unpriced."""
    if price.free:
        return []
    found: list[Line] = []
    total = 0
    for name, quantity, rate, per in _multiplied(usage, price):
        if rate is None:
            raise Unpriced(name)
        if amount := (quantity * rate + per // 2) // per:
            # Made as the tuple that it is: a named tuple's own constructor takes twice as long.
            found.append(tuple.__new__(Line, (name, quantity, amount)))
            total += amount
    if difference := _difference(total, usage, price):
        found.append(Line("discount" if difference < 0 else "premium", 0, difference))
    if usage.tools or usage.stored_byte_seconds:
        found += _plain(usage, price)
    return found


def total(usage: Usage, price: Price) -> int:
    """The sum of the lines in nano-dollars, at least 0. Raises Unpriced."""
    if price.free:
        return 0
    total = 0
    for name, quantity, rate, per in _multiplied(usage, price):
        if rate is None:
            raise Unpriced(name)
        # Rounded half up.
        total += (quantity * rate + per // 2) // per
    total += _difference(total, usage, price)
    if usage.tools or usage.stored_byte_seconds:
        total += sum(line.nanodollars for line in _plain(usage, price))
    return total


def _difference(total: int, usage: Usage, price: Price) -> int:
    """What the class takes off or adds: the difference, not the product, is rounded, so that lines stay what the list
    says."""
    multiplier = price.multipliers.get("batch" if usage.batch else usage.service_tier, 1000)
    return 0 if multiplier == 1000 else (total * multiplier + 500) // 1000 - total


def _multiplied(usage: Usage, price: Price) -> list[tuple[str, int, int | None, int]]:
    """Name, quantity, rate and what the rate is for, of everything that was used."""
    used: list[tuple[str, int, int | None, int]] = []
    rest = usage.input_tokens
    if quantity := usage.cached_input_tokens:
        rest -= quantity
        used.append(("cached_input", quantity, price.cached_input, MILLION))
    if quantity := usage.cache_write_tokens:
        rest -= quantity
        used.append(("cache_write", quantity, price.cache_write, MILLION))
    if quantity := usage.input_audio_tokens:
        rest -= quantity
        used.append(("input_audio", quantity, price.input_audio, MILLION))
    if (quantity := usage.input_image_tokens) and rest > 0:
        # Cached tokens are not told apart by what they stand for: what is left of the prompt bounds the images.
        quantity = min(quantity, rest)
        rest -= quantity
        used.append(("input_image", quantity, price.input_image, MILLION))
    if rest > 0:
        used.append(("input", rest, price.input, MILLION))
    rest = usage.output_tokens
    if quantity := usage.output_audio_tokens:
        rest -= quantity
        used.append(("output_audio", quantity, price.output_audio, MILLION))
    if quantity := usage.output_image_tokens:
        rest -= quantity
        used.append(("output_image", quantity, price.output_image, MILLION))
    if rest > 0:
        used.append(("output", rest, price.output, MILLION))
    if quantity := usage.images:
        used.append(("image", quantity, price.image(usage.image_size, usage.image_quality), 1))
    if quantity := usage.audio_ms:
        used.append(("audio", quantity, price.audio_minute, MINUTE_MS))
    if quantity := usage.characters:
        used.append(("characters", quantity, price.characters, MILLION))
    return used


def _plain(usage: Usage, price: Price) -> Iterator[Line]:
    calls: Counter[str] = Counter()
    for used in usage.tools:
        calls[used.tool] += used.calls
    for tool, quantity in calls.items():
        rate = price.tools.get(tool)
        if rate is None:
            raise Unpriced(f"tool:{tool}")
        if quantity and rate:
            yield Line(f"tool:{tool}", quantity, quantity * rate)
    if quantity := usage.stored_byte_seconds:
        if price.storage is None:
            raise Unpriced("storage")
        if amount := (quantity * price.storage + GIB_DAY // 2) // GIB_DAY:
            yield Line("storage", quantity, amount)
