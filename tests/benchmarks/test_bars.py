"""The line of a bar is what later tools read."""

from benchmarks.bars import Bar


def test_a_bar_is_a_line_that_says_whether_it_is_met() -> None:
    assert str(Bar("share", 0.05, "<=", 0.05)) == "bar share 0.0500 <= 0.05 ok"
    assert str(Bar("share", 0.0501, "<=", 0.05)) == "bar share 0.0501 <= 0.05 short"
    assert str(Bar("rate", 12345.678, ">=", 10)) == "bar rate 12345.6780 >= 10 ok"
    assert Bar("rate", 9.9, ">=", 10).short
