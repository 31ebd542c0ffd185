"""`data:` URLs as clients write them, and what is wrong with others."""

import tracemalloc
from base64 import b64encode

import pytest

from services.faults import InvalidRequest
from services.gateway.downloads import Fetched, decode_data_url

IMAGES = ("image/png", "image/svg+xml")


def decode(url: str, max_bytes: int = 100) -> Fetched:
    return decode_data_url(url, max_bytes=max_bytes, content_types=IMAGES)


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:image/png;base64,AQID", b"\1\2\3"),
        ("DATA:IMAGE/PNG;BASE64,AQID", b"\1\2\3"),
        ("data:image/png;charset=x;base64,AQI=", b"\1\2"),
        ("data:image/png;base64,AQI", b"\1\2"),
        ("data:image/png;base64,AQI%3D", b"\1\2"),
        ("data:image/png;base64,AQ\r\n ID\n", b"\1\2\3"),
        ("data:image/png,%01a%2C", b"\1a,"),
        ("data:image/png;base64 ,++//", b"\xfb\xef\xff"),
        ("data:image/svg+xml,<svg>ä,%</svg>", "<svg>ä,%</svg>".encode()),
    ],
)
def test_good_ones(url: str, content: bytes) -> None:
    assert decode(url).content == content


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "invalid_image_url"),
        ("data:", "invalid_image_url"),
        ("data:image/png;base64", "invalid_image_url"),
        ("https://images.example/,", "invalid_image_url"),
        ("data:image/png;" + "a" * 300 + ",x", "invalid_image_url"),
        ("data:,hello", "unsupported_image_media_type"),
        ("data:text/html;base64,AQID", "unsupported_image_media_type"),
        ("data:image/png,", "empty_image_file"),
        ("data:image/png;base64,", "empty_image_file"),
        ("data:image/png;base64,===", "empty_image_file"),
        ("data:image/png;base64,A", "invalid_base64_image"),
        ("data:image/png;base64,AQ=ID", "invalid_base64_image"),
        ("data:image/png;base64,AQ-_", "invalid_base64_image"),
        ("data:image/png;base64,AQIä", "invalid_base64_image"),
        ("data:image/png;base64,AQI\x00", "invalid_base64_image"),
        ("data:image/png;base64," + "A" * 136, "image_file_too_large"),
        ("data:image/png," + "a" * 101, "image_file_too_large"),
        ("data:image/png," + "%61" * 101, "image_file_too_large"),
        ("data:image/png," + "ä" * 51, "image_file_too_large"),
    ],
)
def test_bad_ones(url: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(url)
    assert caught.value.reason == reason and caught.value.rule.status == 400
    assert len(caught.value.message) < 500


def test_the_bound_is_exact() -> None:
    for size in range(95, 106):
        url = f"data:image/png;base64,{b64encode(bytes(size)).decode()}"
        if size <= 100:
            assert len(decode(url).content) == size
        else:
            with pytest.raises(InvalidRequest):
                decode(url)


@pytest.mark.parametrize("payload", ["A" * 30_000_000, "%41" * 10_000_000, " " * 30_000_000])
def test_too_much_is_refused_before_it_is_decoded(payload: str) -> None:
    url = f"data:image/png;base64,{payload}"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            decode(url, max_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * len(url), "no more than the URL's own text was copied"
