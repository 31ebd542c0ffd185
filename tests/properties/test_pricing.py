"""What usage costs, for any usage and any price: whole, from parts that are counted once, never less for more."""

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelplane.usage.v1.usage_pb2 import ToolUsage, Usage
from services.pricing import cost
from services.pricing.book import Book, Version
from services.pricing.cost import Price
from services.pricing.rates import NANO, decode, encode, parse

DOLLARS = st.integers(0, 10**13).map(lambda nano: f"{nano // NANO}.{nano % NANO:09}")
PARTS = ("cached_input", "cache_write", "input_audio", "input_image", "output_audio", "output_image")
COUNTS = st.integers(0, 10**7)


@st.composite
def price_tables(draw: st.DrawFn) -> dict[str, Any]:
    table: dict[str, Any] = {"input": draw(DOLLARS), "output": draw(DOLLARS)}
    table |= {name: draw(DOLLARS) for name in PARTS if draw(st.booleans())}
    table |= {"images": [{"price": draw(DOLLARS)}], "audio_minute": draw(DOLLARS), "characters": draw(DOLLARS)}
    return {**table, "tools": {"web_search": draw(DOLLARS)}, "storage_gib_day": draw(DOLLARS)}


@st.composite
def usages(draw: st.DrawFn, /, **fixed: Any) -> Usage:
    """Parts within their wholes; image tokens may also be among the cached ones."""
    cached, written, audio, rest = (draw(COUNTS) for _ in range(4))
    spoken, drawn, said = (draw(COUNTS) for _ in range(3))
    prompt = cached + written + audio + rest
    return Usage(
        input_tokens=prompt,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=audio,
        input_image_tokens=draw(st.integers(0, prompt)),
        output_tokens=spoken + drawn + said,
        output_audio_tokens=spoken,
        output_image_tokens=drawn,
        reasoning_tokens=draw(st.integers(0, said)),
        images=draw(st.integers(0, 100)),
        audio_ms=draw(COUNTS),
        characters=draw(COUNTS),
        tools=[ToolUsage(tool="web_search", calls=calls)] if (calls := draw(st.integers(0, 9))) else [],
        stored_byte_seconds=draw(st.integers(0, 2**60)),
        service_tier=fixed.get("service_tier") or draw(st.sampled_from(["default", "flex", "priority", "scale"])),
        batch=fixed["batch"] if "batch" in fixed else draw(st.booleans()),
    )


PRICES = price_tables().map(parse)


@given(usages(), PRICES)
def test_every_token_is_on_one_line(usage: Usage, rates: Any) -> None:
    # Lines of 0 nano-dollars are left out, so that with free parts some tokens are not to be seen.
    price = Price(1, rates)
    quantities = {name: quantity for name, quantity, _, _ in cost._multiplied(usage, price)}
    prompt = ("input", "cached_input", "cache_write", "input_audio", "input_image")
    assert sum(quantities.get(name, 0) for name in prompt) == usage.input_tokens
    answer = ("output", "output_audio", "output_image")
    assert sum(quantities.get(name, 0) for name in answer) == usage.output_tokens


@given(usages(), PRICES)
def test_amounts_are_whole_and_each_is_rounded_by_half_a_nano_dollar_at_most(usage: Usage, rates: Any) -> None:
    price = Price(1, rates)
    lines = cost.lines(usage, price)
    assert all(type(line.nanodollars) is int and line.nanodollars for line in lines)
    assert len({line.name for line in lines}) == len(lines)
    shown = {line.name: line.nanodollars for line in lines}
    for name, quantity, rate, per in cost._multiplied(usage, price):
        assert rate is not None
        assert abs(Fraction(quantity * rate, per) - shown.get(name, 0)) <= Fraction(1, 2)
    assert cost.total(usage, price) == sum(shown.values()) >= 0


@given(usages(service_tier="default", batch=False), PRICES)
def test_batch_and_flex_cost_half_of_the_default_and_priority_twice(usage: Usage, rates: Any) -> None:
    price = Price(1, rates)
    fixed = sum(line.nanodollars for line in cost.lines(usage, price) if line.name.startswith(("tool:", "storage")))
    plain = cost.total(usage, price) - fixed

    def total(**changes: Any) -> int:
        changed = Usage()
        changed.CopyFrom(usage)
        changed.MergeFrom(Usage(**changes))
        return cost.total(changed, price) - fixed

    batch = total(batch=True)
    assert batch == total(service_tier="flex") == total(service_tier="priority", batch=True)
    assert batch <= plain
    assert abs(2 * batch - plain) <= 1
    assert total(service_tier="priority") == 2 * plain


@given(usages(), PRICES, st.sampled_from(["output_tokens", "images", "audio_ms", "characters"]), COUNTS)
def test_more_never_costs_less(usage: Usage, rates: Any, field: str, more: int) -> None:
    price = Price(1, rates)
    before = cost.total(usage, price)
    setattr(usage, field, getattr(usage, field) + more)
    assert cost.total(usage, price) >= before


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), DOLLARS, st.booleans())
def test_a_longer_prompt_and_a_colder_cache_never_cost_less(
    prompt: int, more: int, cached: int, rate: str, batch: bool
) -> None:
    price = Price(1, parse({"input": "3", "cached_input": "0.3", "output": rate}))
    cached = min(cached, prompt)
    warm = Usage(input_tokens=prompt, cached_input_tokens=cached, batch=batch)
    cold = Usage(input_tokens=prompt, batch=batch)
    longer = Usage(input_tokens=prompt + more, cached_input_tokens=cached, batch=batch)
    assert cost.total(warm, price) <= cost.total(cold, price)
    assert cost.total(warm, price) <= cost.total(longer, price)


@given(PRICES)
def test_rates_survive_the_way_to_the_database(rates: Any) -> None:
    assert decode(encode(rates)) == rates


@given(
    st.lists(st.integers(0, 20), max_size=8),
    st.integers(-1, 21),
    st.randoms(use_true_random=False),
)
def test_the_latest_version_that_has_begun_counts_in_whatever_order_they_are_read(
    times: list[int], at_ms: int, random: Any
) -> None:
    versions = [Version(number, "m", time, "operator", parse({"free": True})) for number, time in enumerate(times, 1)]
    begun = [(version.effective_at_ms, version.id) for version in versions if version.effective_at_ms <= at_ms]
    random.shuffle(versions)
    price = Book(versions).price("m", at_ms)
    assert (price.id if price else None) == (max(begun)[1] if begun else None)
