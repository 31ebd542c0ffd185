"""How image files become what the model looks at."""

from io import BytesIO

import PIL.Image
import pytest

from services.chat_inference.engines.images import decode
from services.faults import InvalidRequest
from services.vision import Vision

VISION = Vision(448, 112, 16)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def saved(image: PIL.Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def seen(content: bytes, low: bool = False) -> PIL.Image.Image:
    return decode(content, VISION, low, 10_000_000)


def near(pixel: object, colour: tuple[int, int, int]) -> bool:
    assert isinstance(pixel, tuple)
    return all(abs(one - other) < 12 for one, other in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("size", [(60, 40), (900, 600)])
@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (1, 0)), (8, (0, 1)), (9, (0, 0))])
def test_pictures_are_upright(size: tuple[int, int], orientation: int, corner: tuple[int, int]) -> None:
    """Blue, with a red corner that the camera's turn has brought elsewhere."""
    image = PIL.Image.new("RGB", size, BLUE)
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = seen(saved(image, "JPEG", exif=exif, quality=95))
    assert not picture.info
    assert (picture.width > picture.height) == (orientation not in (6, 8))
    for x in (0, 1):
        for y in (0, 1):
            at = (picture.width * (1 + 2 * x) // 4, picture.height * (1 + 2 * y) // 4)
            assert near(picture.getpixel(at), RED if (x, y) == corner else BLUE)


def test_what_is_transparent_is_white() -> None:
    for form in ("PNG", "WEBP"):
        image = PIL.Image.new("RGBA", (20, 20), (*RED, 0))
        image.paste((*BLUE, 255), (0, 0, 20, 10))
        picture = seen(saved(image, form, lossless=True))
        assert (picture.getpixel((5, 5)), picture.getpixel((5, 15))) == (BLUE, WHITE)


def test_the_first_picture_of_an_animation() -> None:
    frames = [PIL.Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE)]
    for form in ("GIF", "WEBP"):
        content = saved(frames[0], form, save_all=True, append_images=frames[1:], duration=40, lossless=True)
        assert seen(content).getpixel((5, 5)) == RED


def test_no_more_is_kept_than_is_looked_at() -> None:
    content = saved(PIL.Image.new("RGB", (3000, 2000), RED), "JPEG")
    assert seen(content).size == VISION.scaled(3000, 2000, False)
    assert seen(content, low=True).size == VISION.scaled(3000, 2000, True)
    small = saved(PIL.Image.new("RGB", (30, 20), RED), "PNG")
    assert seen(small).size == (30, 20)


def test_too_many_pixels_are_not_decoded() -> None:
    content = saved(PIL.Image.new("1", (4000, 4000)), "PNG")
    with pytest.raises(InvalidRequest) as caught:
        seen(content)
    assert caught.value.reason == "image_too_large"


def test_other_formats_are_not_opened() -> None:
    for form in ("BMP", "TIFF", "PPM"):
        with pytest.raises(PIL.UnidentifiedImageError):
            seen(saved(PIL.Image.new("RGB", (3, 3)), form))
