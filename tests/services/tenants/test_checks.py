"""What a change may say, and what is kept of it."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelplane.tenants.v1.tenants_pb2 import SpendAlert
from services.asked import MOST_CENTS
from services.faults import InvalidRequest
from services.tenants import checks


@pytest.mark.parametrize("text", ["", " ", "\t", "a\nb", "a\0", "a\x7f", "a" * 257, " "])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checks.name(text)
    assert caught.value.param == "name"


@pytest.mark.parametrize("text", ["a", "a" * 256, "Ünïcödé 🦜", "a b"])
def test_names(text: str) -> None:
    assert checks.name(text) == text


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.1.2.3/255.255.255.0", "10.1.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
    ],
)
def test_blocks(block: str, kept: str) -> None:
    assert checks.blocks([block, kept]) == [kept]


@pytest.mark.parametrize(
    "block",
    ["", "a", "10", "10.0.0.0/33", "10.0.0.256", "010.0.0.1", "fe80::1%eth0/64", "10.0.0.0/8 ", "1.2.3.4/-1", "a\0"],
)
def test_blocks_that_are_none(block: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checks.blocks(["10.0.0.0/8", block])
    assert caught.value.param == "ip_ranges"


@given(st.lists(st.text(alphabet="0123456789abcdef.:/%", max_size=20), max_size=3))
def test_what_is_kept_is_always_a_network(given_blocks: list[str]) -> None:
    try:
        kept = checks.blocks(given_blocks)
    except InvalidRequest:
        return
    assert [str(ip_network(block)) for block in kept] == kept
    assert checks.blocks(kept) == kept


ALERTS = [
    SpendAlert(),
    SpendAlert(threshold_cents=-1, webhook_url="https://a"),
    SpendAlert(threshold_cents=MOST_CENTS + 1, webhook_url="https://a"),
    SpendAlert(webhook_url="https://a", subject_prefix="a\r\nBcc: b@example.com"),
    SpendAlert(email_recipients=["a@example.com"] * 51),
    *(
        SpendAlert(email_recipients=[address])
        for address in ("", "a", "@a", "a@", "a@b@c", "a b@c", "a@b,c@d", "a@b\n", "A <a@b>", "a" * 254 + "@b")
    ),
    *(
        SpendAlert(webhook_url=url)
        for url in (
            "a",
            "ftp://a",
            "https://",
            "https:///a",
            "https://a b",
            "https://a:99999",
            "https://[",
            "file:///a",
            "https://é",
            "http://a:0",
            "https://a/" + "a" * 2048,
        )
    ),
]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert)[:40] or "nobody")
def test_alerts_that_reach_nobody(alert: SpendAlert) -> None:
    with pytest.raises(InvalidRequest):
        checks.alert(alert)


def test_alerts() -> None:
    checks.alert(SpendAlert(email_recipients=["a+b@example.com", "ü@xn--a.example"], subject_prefix="Spend"))
    checks.alert(SpendAlert(threshold_cents=MOST_CENTS, webhook_url="http://localhost:8080/a?b=c"))
    checks.alert(SpendAlert(webhook_url="https://[::1]/"))
