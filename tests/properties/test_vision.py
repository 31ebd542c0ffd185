"""How images are cut: scaling an image beforehand, as the replica does, changes none of its tiles."""

from hypothesis import given
from hypothesis import strategies as st

from services.vision import LONGEST, Vision

sides = st.integers(1, 20_000)
visions = st.builds(lambda half, times: Vision(2 * half * times, 2 * half, 16), st.integers(14, 256), st.integers(1, 8))


@given(visions, sides, sides, st.booleans())
def test_a_scaled_image_has_the_same_tiles(vision: Vision, width: int, height: int, low: bool) -> None:
    scaled = vision.scaled(width, height, low)
    assert vision.tiles(*scaled, low) == vision.tiles(width, height, low)


@given(visions, sides, sides)
def test_tiles_are_bounded_and_low_detail_is_one(vision: Vision, width: int, height: int) -> None:
    assert vision.tiles(width, height, True) == (0, 0)
    rows, columns = vision.tiles(width, height, False)
    most = -(-min(vision.edge, LONGEST) // vision.tile)
    assert (rows, columns) == (0, 0) or (max(rows, columns) == most and min(rows, columns) >= 1)


@given(visions, sides, sides, st.booleans())
def test_lying_and_standing_images_mirror_each_other(vision: Vision, width: int, height: int, low: bool) -> None:
    assert vision.scaled(height, width, low) == vision.scaled(width, height, low)[::-1]
