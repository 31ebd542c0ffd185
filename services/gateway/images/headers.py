"""Reads an image file's format and size from its first bytes, without decoding it: the gateway has no image library.

Pure. Kept true: whatever the bytes, the answer comes within a bounded number of steps, without reading past the end
and without any memory for pixels. The size is the one that Pillow decodes to, so that the count of a prompt's tokens
made from it is the engine's.
"""

from struct import Struct, error
from typing import Final, NamedTuple

PNG: Final = b"\x89PNG\r\n\x1a\n"
# Blocks that may come before the one that has the size. Real files have a few dozen.
MOST_BLOCKS: Final = 10_000
# Orientations in which the camera lay on its side.
SIDEWAYS: Final = frozenset((5, 6, 7, 8))
ORIENTATION: Final = 0x0112
# Start-of-frame markers are 0xC0 to 0xCF, but for these three: tables, a reserved one, arithmetic conditioning.
NO_FRAME: Final = frozenset((0xC4, 0xC8, 0xCC))

_big_u16, _big_u32_pair = Struct(">H"), Struct(">II")
_little_u16, _little_u16_pair = Struct("<H"), Struct("<HH")


class HeaderError(Exception):
    """The bytes begin like an image of a known format, and do not go on like one."""


class Header(NamedTuple):
    """png, jpeg, gif or webp, and the size in pixels as it is seen."""

    format: str
    width: int
    height: int


def read_header(content: bytes) -> Header | None:
    """None for what is of none of the formats. Raises HeaderError."""
    if content.startswith(PNG):
        kind, read = "png", _png
    elif content.startswith(b"\xff\xd8\xff"):
        kind, read = "jpeg", _jpeg
    elif content.startswith((b"GIF87a", b"GIF89a")):
        kind, read = "gif", _gif
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        kind, read = "webp", _webp
    else:
        return None
    try:
        width, height = read(content)
    except (error, IndexError):
        raise HeaderError("it ends too early") from None
    if not width or not height:
        raise HeaderError("it has no pixels")
    return Header(kind, width, height)


def _png(content: bytes) -> tuple[int, int]:
    if content[12:16] != b"IHDR":
        raise HeaderError("it does not begin with its header")
    width, height = _big_u32_pair.unpack_from(content, 16)
    return width, height


def _jpeg(content: bytes) -> tuple[int, int]:
    """The last frame before the first scan counts; what Exif says of the orientation turns it."""
    at, size, orientation = 2, (0, 0), None
    for _ in range(MOST_BLOCKS):
        if content[at] != 0xFF:
            raise HeaderError("a marker is missing")
        marker = content[at + 1]
        if marker == 0xFF:  # may fill the space before a marker
            at += 1
            continue
        at += 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # stand alone
            continue
        if marker == 0xDA:  # pixels follow
            break
        (length,) = _big_u16.unpack_from(content, at)
        if length < 2:
            raise HeaderError("a block is shorter than its length")
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            size = _big_u16.unpack_from(content, at + 5)[0], _big_u16.unpack_from(content, at + 3)[0]
        elif marker == 0xE1 and orientation is None and content[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(content[at + 8 : at + length])
        at += length
    else:
        raise HeaderError("it has too many blocks")
    return (size[1], size[0]) if orientation in SIDEWAYS else size


def _orientation(exif: bytes) -> int:
    """Of the first directory of tags; 0 where it says none. Broken tags say nothing, for Pillow too."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 0
    entry = Struct(order + "HHIH")
    try:
        (start,) = Struct(order + "I").unpack_from(exif, 4)
        (count,) = Struct(order + "H").unpack_from(exif, start)
        for index in range(count):
            tag, kind, values, value = entry.unpack_from(exif, start + 2 + 12 * index)
            if tag == ORIENTATION and kind == 3 and values == 1:
                return int(value)
    except error:
        pass
    return 0


def _gif(content: bytes) -> tuple[int, int]:
    """The screen, enlarged to hold the first image."""
    width, height = _little_u16_pair.unpack_from(content, 6)
    at = 13 + _colours(content[10])
    for _ in range(MOST_BLOCKS):
        kind = content[at]
        if kind == 0x2C:
            left, top = _little_u16_pair.unpack_from(content, at + 1)
            inner_width, inner_height = _little_u16_pair.unpack_from(content, at + 5)
            return max(width, left + inner_width), max(height, top + inner_height)
        if kind != 0x21:
            raise HeaderError("it has no image")
        at = _after(content, at + 2)
    raise HeaderError("it has too many blocks")


def _colours(flags: int) -> int:
    """Bytes of the table of colours that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after(content: bytes, at: int) -> int:
    """Where a sequence of pieces, each after its length, has ended."""
    for _ in range(MOST_BLOCKS):
        length = content[at]
        at += 1 + length
        if not length:
            return at
    raise HeaderError("it has too many blocks")


def _webp(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8 ":
        if content[23:26] != b"\x9d\x01\x2a":
            raise HeaderError("its frame does not begin as one")
        width, height = _little_u16_pair.unpack_from(content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        if content[20] != 0x2F:
            raise HeaderError("its frame does not begin as one")
        bits = int.from_bytes(content[21:24], "little") | content[24] << 24
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        _little_u16.unpack_from(content, 28)
        return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
    raise HeaderError("its first block is of no known kind")
