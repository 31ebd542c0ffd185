"""Who shares a budget, and that what is remembered of sources is bounded."""

import pytest

from services.auth.guesses import Budget, Guesses, source


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("unix socket", ""),
    ],
)
def test_a_source(address: str, expected: str) -> None:
    assert source(address) == expected


def test_sources_are_bounded() -> None:
    def budget() -> Budget:
        return Budget(per_s=1, burst=1, clock=lambda: 0)

    guesses = Guesses(budget, Budget(per_s=1, burst=100, clock=lambda: 0), most_sources=2)
    assert [guesses.take(name) for name in ("a", "b", "a", "c", "a", "b")] == [True, True, False, True, False, True]
    assert len(guesses) == 2
    guesses.give_back("b")
    guesses.give_back("gone")
    assert guesses.take("b") and len(guesses) == 2


def test_what_was_not_looked_up_costs_its_source_nothing() -> None:
    now_s = 0.0
    guesses = Guesses(lambda: Budget(1, 2, lambda: now_s), Budget(1, 1, lambda: now_s))
    assert [guesses.take("a"), guesses.take("b"), guesses.take("b")] == [True, False, False]
    now_s = 1
    assert guesses.take("b")
