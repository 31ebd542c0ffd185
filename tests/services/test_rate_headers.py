"""Durations as Go prints them, and the six headers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelplane.ratelimit.v1.ratelimit_pb2 import BucketState
from services.rate_headers import go_duration, rate_headers

UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [
        (0, "0s"),
        (12, "12ms"),
        (999, "999ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (1001, "1.001s"),
        (20_000, "20s"),
        (60_000, "1m0s"),
        (61_020, "1m1.02s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (90_061_001, "25h1m1.001s"),
    ],
)
def test_durations_are_written_as_go_writes_them(duration_ms: int, text: str) -> None:
    assert go_duration(duration_ms) == text


@given(st.integers(0, 10**10))
def test_no_duration_loses_a_millisecond(duration_ms: int) -> None:
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", go_duration(duration_ms))
    assert round(sum(float(number) * UNITS_MS[unit] for number, unit in parts)) == duration_ms


def test_the_six_headers() -> None:
    requests = BucketState(limit=60, remaining=59, reset_ms=1000)
    tokens = BucketState(limit=150_000, remaining=149_984, reset_ms=360_000)
    assert rate_headers(requests, tokens) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "6m0s",
    }


def test_what_is_not_limited_has_no_headers() -> None:
    headers = rate_headers(BucketState(limit=60, remaining=0, reset_ms=12), BucketState())
    assert headers == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12ms",
    }
