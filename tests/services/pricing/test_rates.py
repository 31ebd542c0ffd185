"""Rates as people write them: decimals stay exact, and what says nothing or two things at once is refused."""

import pytest

from services.pricing.rates import Rates, RatesError, decode, encode, nanodollars, parse, per_mille


def test_numbers_of_a_file_are_the_decimals_that_stand_there() -> None:
    rates = parse({"input": 0.15, "output": 1e-7, "tools": {"web_search": 1}, "multipliers": {"batch": 0.3}})
    assert (rates.input, rates.output, rates.tools, rates.multipliers.batch) == (
        "0.15",
        "0.0000001",
        {"web_search": "1"},
        "0.3",
    )
    assert nanodollars("0.15") == 150_000_000
    assert nanodollars("0.000000001") == 1
    assert per_mille("0.5") == 500


def test_rates_come_back_as_they_were() -> None:
    rates = parse({"input": "2.50", "images": [{"size": "1024x1024", "price": "0.04"}], "multipliers": {"flex": "1"}})
    assert decode(encode(rates)) == rates
    assert decode(encode(Rates(free=True))) == Rates(free=True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "free = true"),
        ({"free": True, "input": 1}, "either free or"),
        ({"inptu": 1}, "inptu"),
        ({"input": -1}, "input"),
        ({"input": "NaN"}, "input"),
        ({"input": float("inf")}, "input"),
        ({"input": "0.0000000001"}, "input"),
        ({"input": "1e3"}, "input"),
        ({"input": True}, "input"),
        ({"cached_input": 1, "output": 1}, "cached_input"),
        ({"output_audio": 1, "input": 1}, "output_audio"),
        ({"images": [{"size": "1024x1024"}]}, "price"),
    ],
)
def test_what_cannot_be_a_price(value: dict[str, object], said: str) -> None:
    with pytest.raises(RatesError, match=said):
        parse(value)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"1", b"{", b"\xff"])
def test_bytes_that_are_no_rates(data: bytes) -> None:
    with pytest.raises(RatesError):
        decode(data)
