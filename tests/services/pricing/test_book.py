"""Which price is in force: to the millisecond, and the same however the versions were read."""

from services.pricing.book import Book, Version
from services.pricing.rates import parse

CHEAP, DEAR = parse({"input": "1"}), parse({"input": "2"})


def price_id(book: Book, at_ms: int, model: str = "m") -> int | None:
    price = book.price(model, at_ms)
    return price.id if price else None


def test_a_version_holds_from_its_first_millisecond() -> None:
    book = Book([Version(2, "m", 1000, "operator", DEAR), Version(1, "m", 0, "default", CHEAP)])
    assert [price_id(book, at_ms) for at_ms in (-1, 0, 999, 1000, 10**15)] == [None, 1, 1, 2, 2]
    assert price_id(book, 5, "other") is None
    assert (book.last_id, list(book.models())) == (2, ["m"])


def test_of_the_same_moment_the_later_row_counts() -> None:
    versions = [Version(3, "m", 0, "file", DEAR), Version(1, "m", 0, "default", CHEAP)]
    assert price_id(Book(versions), 0) == price_id(Book(reversed(versions)), 0) == 3


def test_a_version_for_later_that_was_made_earlier_waits() -> None:
    book = Book([Version(1, "m", 5000, "operator", DEAR), Version(2, "m", 1000, "operator", CHEAP)])
    assert [price_id(book, at_ms) for at_ms in (999, 1000, 5000)] == [None, 2, 1]


def test_an_empty_book() -> None:
    assert price_id(Book([]), 0) is None
    assert Book([]).last_id == 0
