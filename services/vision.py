"""How a model of the Idefics3 family cuts an image into tiles, from the image's size and the checkpoint's own numbers.

The tokenizer counts an image's tokens before anything has decoded it, and the replica scales the image to what will
be looked at: both must come to the same tiles as the engine's image processor does.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

# The image processor's own bound on a scaled image's edge.
LONGEST: Final = 4096


class VisionError(Exception):
    """The checkpoint does not say how it sees; the message names the file."""


class Vision(NamedTuple):
    """A checkpoint's numbers. Edges are in pixels."""

    edge: int
    """The longest edge that an image is scaled to, at high detail."""

    tile: int
    """The edge of a tile."""

    tile_tokens: int
    """Tokens of a tile."""

    def longest_edge(self, low: bool) -> int:
        """At low detail an image is scaled to a single tile."""
        return self.tile if low else self.edge

    def scaled(self, width: int, height: int, low: bool) -> tuple[int, int]:
        """The size that an image is scaled to, up or down, with the shorter edge made even."""
        longest = self.longest_edge(low)
        ratio = width / height
        if width >= height:
            width, height = longest, _even(int(longest / ratio))
        else:
            width, height = _even(int(longest * ratio)), longest
        return _bounded(max(width, 1), max(height, 1))

    def tiles(self, width: int, height: int, low: bool) -> tuple[int, int]:
        """Rows and columns of the tiles of an image; (0, 0) when the whole of it is one tile."""
        width, height = self.scaled(width, height, low)
        ratio = width / height
        if width >= height:
            width = _whole(width, self.tile)
            height = _whole(int(width / ratio), self.tile)
        else:
            height = _whole(height, self.tile)
            width = _whole(int(height * ratio), self.tile)
        if width <= self.tile and height <= self.tile:
            return 0, 0
        return height // self.tile, width // self.tile


def read_vision(checkpoint: Path) -> Vision:
    """The numbers in a checkpoint's folder. Raises VisionError."""
    file = checkpoint / "processor_config.json"
    processor = _json(file)
    images = processor.get("image_processor") or _json(checkpoint / "preprocessor_config.json")
    try:
        vision = Vision(
            images["size"]["longest_edge"], images["max_image_size"]["longest_edge"], processor["image_seq_len"]
        )
    except (KeyError, TypeError) as error:
        raise VisionError(f"{file}: not of the Idefics3 family, whose images alone can be counted") from error
    if not all(type(number) is int and number > 0 for number in vision):
        raise VisionError(f"{file}: the sizes of images are no numbers")
    return vision


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise VisionError(f"{file}: {error}") from error
    return content if isinstance(content, dict) else {}


def _even(number: int) -> int:
    return number + number % 2


def _whole(edge: int, tile: int) -> int:
    """Rounded up to whole tiles."""
    return -(-edge // tile) * tile


def _bounded(width: int, height: int) -> tuple[int, int]:
    ratio = width / height
    if width >= height and width > LONGEST:
        return LONGEST, max(int(LONGEST / ratio), 1)
    if height > width and height > LONGEST:
        return max(int(LONGEST * ratio), 1), LONGEST
    return width, height
