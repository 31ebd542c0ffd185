"""The reader of image headers agrees with Pillow about whole files, and survives whatever else it is given."""

import struct
import warnings
from io import BytesIO

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.images.headers import HeaderError, read_header

MODES = {
    "PNG": ["RGB", "RGBA", "L", "P", "1", "I;16"],
    "JPEG": ["RGB", "L", "CMYK"],
    "GIF": ["P", "L"],
    "WEBP": ["RGB", "RGBA"],
}


@st.composite
def files(draw: st.DrawFn) -> bytes:
    form = draw(st.sampled_from(list(MODES)))
    size = draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    image = PIL.Image.new(draw(st.sampled_from(MODES[form])), size)
    options: dict[str, object] = {}
    if form == "JPEG":
        options["progressive"] = draw(st.booleans())
        options["comment"] = draw(st.binary(max_size=20))
    if form == "WEBP":
        options["lossless"] = draw(st.booleans())
    if form in ("GIF", "WEBP") and draw(st.booleans()):
        options |= {"save_all": True, "append_images": [PIL.Image.new(image.mode, size, 1)], "duration": 40}
    if form == "GIF" and draw(st.booleans()):
        options["comment"] = draw(st.binary(min_size=1, max_size=600))
    if form in ("JPEG", "WEBP") and draw(st.booleans()):
        exif = PIL.Image.Exif()
        exif[0x010E] = "a picture"
        exif[0x0112] = draw(st.integers(0, 9))
        options["exif"] = exif
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@given(files())
def test_the_size_is_pillow_s(content: bytes) -> None:
    header = read_header(content)
    assert header
    with PIL.Image.open(BytesIO(content)) as image:
        width, height = image.size
        # An animated JPEG is an MPO to Pillow.
        assert header.format.upper() == image.format
        if image.format == "JPEG" and image.getexif().get(0x0112) in (5, 6, 7, 8):
            width, height = height, width
        assert (header.width, header.height) == (width, height)


@given(files(), st.data())
@settings(max_examples=300)
def test_broken_files_are_refused_or_have_pillow_s_size(content: bytes, data: st.DataObject) -> None:
    """Cut, or with bytes replaced: what Pillow still opens has that size, or is refused here."""
    broken = bytearray(content[: data.draw(st.integers(0, len(content)))])
    if broken:
        for at in data.draw(st.lists(st.integers(0, min(len(broken) - 1, 120)), max_size=3)):
            broken[at] = data.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(broken))
    except HeaderError:
        return
    if header is None:
        return
    assert header.width > 0 < header.height
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(BytesIO(broken), formats=("PNG", "JPEG", "GIF", "WEBP")) as image:
                opened = image.size
    except Exception:
        return
    assert (header.width, header.height) in (opened, opened[::-1])


beginnings = st.sampled_from(
    [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8X", b""]
)


@given(beginnings, st.binary(max_size=200))
def test_anything_has_an_answer(beginning: bytes, rest: bytes) -> None:
    try:
        header = read_header(beginning + rest)
    except HeaderError:
        return
    assert header is None or (header.width > 0 and header.height > 0)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5_000_000,
        b"\xff\xd8\xff" + b"\xff" * 20_000_000,
        b"GIF89a" + b"\1\0\1\0\0\0\0" + b"\x21\xfe" + b"\1a" * 10_000_000,
        b"GIF89a" + b"\1\0\1\0\0\0\0" + b"\x21\xfe\0" * 5_000_000,
    ],
)
def test_twenty_megabytes_of_nothing_are_soon_refused(content: bytes) -> None:
    with pytest.raises(HeaderError):
        read_header(content)


def test_a_first_image_beyond_the_screen() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0)
    assert read_header(screen + b"\x2c" + struct.pack("<HHHHB", 5, 2, 20, 3, 0)) == ("gif", 25, 10)
