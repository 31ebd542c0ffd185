"""Reading URLs: whatever a client sends is a location within the rules, or is refused without a crash."""

from base64 import b64encode
from ipaddress import ip_address
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.faults import InvalidRequest
from services.gateway.downloads.data_urls import decode_data_url
from services.internet.locations import Location, LocationError, Rules, host_of, read

RULES = Rules(allow_http=False, ports=frozenset((80, 443)), private_hosts=frozenset())
PNG = ("image/png",)

hosts = st.text("abcdefgh.-_0123456789xX[]:@%\\/\uff1f\u3002\uff11", max_size=30)
urls = st.one_of(
    st.text(max_size=60),
    st.builds("{}://{}{}".format, st.sampled_from(["https", "HTTPS", "http", "file"]), hosts, st.text(max_size=20)),
)


@given(urls)
def test_a_location_is_within_the_rules(text: str) -> None:
    try:
        location = read(text, RULES)
    except LocationError:
        return
    assert location.scheme == "https" and location.port in (80, 443)
    assert location.host and location.host == location.host.lower() and location.host.isascii()
    assert location.url.raw_path.startswith(b"/")
    if location.address is None:
        assert not location.host.replace(".", "").isdigit()
        assert set(location.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(st.ip_addresses())
def test_an_address_in_its_usual_form_is_itself(address: object) -> None:
    text = f"[{address}]" if ":" in str(address) else str(address)
    location = read(f"https://{text}/", RULES)
    assert location.address == address == ip_address(host_of(text)) == ip_address(host_of(str(address)))
    assert location.authority.strip("[]") == str(address)


@given(st.ip_addresses(v=4))
def test_other_forms_of_an_address_are_no_hosts(address: object) -> None:
    number = int(ip_address(str(address)))
    first, *rest = str(address).split(".")
    for form in (
        str(number),
        hex(number),
        oct(number).replace("o", ""),
        f"{int(first):#x}.{'.'.join(rest)}" if int(first) > 9 else "0x1",
        f"{first}.{number & 0xFFFFFF}",
        f"0{first}.{'.'.join(rest)}",
        f"{first}.{number & 0xFFFFFF:#x}.",
    ):
        with pytest.raises(LocationError):
            read(f"https://{form}/", RULES)


@given(urls)
def test_a_redirect_is_read_by_the_same_rules(text: str) -> None:
    location = read("https://images.example/a/b", RULES)
    try:
        found: Location = read(text, RULES, came_from=location)
    except LocationError:
        return
    assert found.scheme == "https" and found.port in (80, 443) and not found.url.userinfo


@given(st.binary(min_size=1, max_size=300), st.booleans(), st.booleans())
def test_base64_data_urls_give_the_bytes_back(content: bytes, padded: bool, escaped: bool) -> None:
    text = b64encode(content).decode()
    text = text if padded else text.rstrip("=")
    text = text.replace("+", "%2B").replace("=", "%3D") if escaped else text
    found = decode_data_url(f"data:image/png;base64,{text}", max_bytes=300, content_types=PNG)
    assert (found.content, found.content_type) == (content, "image/png")


@given(st.binary(min_size=1, max_size=300))
def test_percent_data_urls_give_the_bytes_back(content: bytes) -> None:
    url = f"data:image/png,{quote_from_bytes(content)}"
    assert decode_data_url(url, max_bytes=300, content_types=PNG).content == content


@given(st.text(max_size=80), st.sampled_from(["", "data:", "data:image/png,", "data:image/png;base64,"]))
def test_no_data_url_is_more_than_it_may_be(text: str, head: str) -> None:
    try:
        found = decode_data_url(head + text, max_bytes=20, content_types=PNG)
    except InvalidRequest as fault:
        assert fault.rule.status == 400
        return
    assert 0 < len(found.content) <= 20
