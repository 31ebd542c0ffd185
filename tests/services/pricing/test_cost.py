"""Lines of single records: every part at its rate, once, and classes that change the sum in a line of their own."""

import pytest

from modelplane.usage.v1.usage_pb2 import ToolUsage, Usage
from services.pricing import cost
from services.pricing.cost import Line, Price, Unpriced
from services.pricing.rates import parse

PRICE = Price(
    7,
    parse(
        {
            "input": "2.50",
            "cached_input": "1.25",
            "cache_write": "3",
            "input_audio": "40",
            "output": "10",
            "output_audio": "80",
            "tools": {"web_search": "0.01"},
        }
    ),
)


def test_cached_tokens_are_counted_once() -> None:
    usage = Usage(input_tokens=1000, cached_input_tokens=600, cache_write_tokens=300, output_tokens=10)
    assert cost.lines(usage, PRICE) == [
        Line("cached_input", 600, 750_000),
        Line("cache_write", 300, 900_000),
        Line("input", 100, 250_000),
        Line("output", 10, 100_000),
    ]


def test_sounds_and_images_are_parts_of_the_prompt_and_the_answer() -> None:
    usage = Usage(
        input_tokens=100, input_audio_tokens=40, input_image_tokens=20, output_tokens=50, output_audio_tokens=30
    )
    assert [line[:2] for line in cost.lines(usage, PRICE)] == [
        ("input_audio", 40),
        ("input_image", 20),
        ("input", 40),
        ("output_audio", 30),
        ("output", 20),
    ]


def test_images_that_the_cache_had_are_not_billed_as_fresh() -> None:
    usage = Usage(input_tokens=100, cached_input_tokens=90, input_image_tokens=80)
    assert [line[:2] for line in cost.lines(usage, PRICE)] == [("cached_input", 90), ("input_image", 10)]


@pytest.mark.parametrize(
    ("tier", "batch", "line"),
    [
        ("default", False, None),
        ("scale", False, None),
        ("flex", False, Line("discount", 0, -500_000)),
        ("default", True, Line("discount", 0, -500_000)),
        # A batch costs what a batch costs, whatever its class: discounts are not multiplied.
        ("flex", True, Line("discount", 0, -500_000)),
        ("priority", True, Line("discount", 0, -500_000)),
        ("priority", False, Line("premium", 0, 1_000_000)),
    ],
)
def test_classes(tier: str, batch: bool, line: Line | None) -> None:
    usage = Usage(output_tokens=100, service_tier=tier, batch=batch)
    assert cost.lines(usage, PRICE)[1:] == ([line] if line else [])


def test_classes_leave_tools_alone() -> None:
    usage = Usage(output_tokens=100, batch=True, tools=[ToolUsage(tool="web_search", calls=3)])
    assert cost.lines(usage, PRICE)[-1] == Line("tool:web_search", 3, 30_000_000)
    assert cost.total(usage, PRICE) == 500_000 + 30_000_000


def test_nothing_used_costs_nothing() -> None:
    assert cost.lines(Usage(), PRICE) == []


def test_what_has_no_rate_is_named() -> None:
    embedding = Price(1, parse({"input": "0.02"}))
    for usage, name in (
        (Usage(output_tokens=1), "output"),
        (Usage(images=1), "image"),
        (Usage(tools=[ToolUsage(tool="web_search", calls=1)]), "tool:web_search"),
        (Usage(stored_byte_seconds=1), "storage"),
    ):
        with pytest.raises(Unpriced, match=name):
            cost.lines(usage, embedding)


def test_free_is_free() -> None:
    assert cost.lines(Usage(input_tokens=10, images=3, batch=True), Price(1, parse({"free": True}))) == []
