"""What passes for a name, a page or an e-mail address, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelplane.admin.v1.admin_pb2 import Page
from services import asked
from services.asked import MOST_ADDRESS, is_address
from services.faults import InvalidRequest


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "root@localhost",
        "first.last+tag@sub.example.com",
        "o'neill_x-y@xn--bcher-kva.example",
        "jürgen@bücher.example",
        "a" * 64 + "@example.com",
        "a@" + ".".join(["b" * 62] * 3),
    ],
)
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a b@c",
        "a@b c",
        " a@b",
        "a@b\n",
        "a\0@b",
        "a\u200b@b",
        "a..b@c",
        ".a@b",
        "a.@b",
        "a@b..c",
        "a@.b",
        "a@b.",
        "a@-b",
        "a@b-",
        "a@b_c",
        '"a"@b',
        "<a@b>",
        "A <a@b>",
        "a,b@c",
        "a@[127.0.0.1]",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64,
        "a@" + ".".join(["b" * 62] * 5),
    ],
)
def test_no_addresses(text: str) -> None:
    assert not is_address(text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_an_address_is_one_printable_word_on_either_side(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    if is_address(text):
        assert text.isprintable() and text.count("@") == 1 and len(text.split()) == 1
        assert 0 < len(local) <= 64 and domain


@given(st.emails())
def test_common_addresses_pass(text: str) -> None:
    assert is_address(text) == (len(text) <= MOST_ADDRESS)


def test_what_is_meant_to_take_long_does_not() -> None:
    assert not is_address("a." * 100 + "@" + "b-" * 20 + "!")


@pytest.mark.parametrize("text", ["", "a" * 256, "Ünïcödé 🦜"])
def test_lines(text: str) -> None:
    assert asked.line(text, "name") == text


@pytest.mark.parametrize("text", ["a\nb", "a\0", "a\x7f", "\x1b[2J", "\x85", "a" * 257])
def test_lines_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked.line(text, "name")
    assert caught.value.param == "name"


@pytest.mark.parametrize("page", [Page(limit=1), Page(limit=100, after="a", before="b")])
def test_pages(page: Page) -> None:
    assert asked.page(page) is page


@pytest.mark.parametrize(
    ("page", "param"),
    [
        (Page(), "limit"),
        (Page(limit=-1), "limit"),
        (Page(limit=101), "limit"),
        (Page(limit=1, after="\0"), "after"),
        (Page(limit=1, before="a\0"), "before"),
    ],
)
def test_pages_that_there_are_not(page: Page, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked.page(page)
    assert caught.value.param == param
