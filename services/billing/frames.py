"""The spool's format: how records lie in a file, and how they are found again in a damaged one.

A frame is `magic, length, checksum, payload`. Kept true: every whole frame is found, whatever was done to the
bytes around it; what is not a frame is reported, so that nothing is skipped in silence; a frame that the end of
the file cuts off is told apart, because a crash in the middle of a write leaves one and nobody was promised it.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 64 * 1024

# Its last byte is the version of the format.
MAGIC = b"MPU\x01"
# Magic, length of the payload in bytes, CRC-32 of the payload beginning with the length.
_HEADER = struct.Struct("<4sII")


class Record(NamedTuple):
    """A whole frame; the next begins at `end`."""

    payload: bytes
    end: int


class Damage(NamedTuple):
    """Bytes that are no frame. `torn`: the beginning of one, cut off by the end of the data."""

    start: int
    end: int
    torn: bool


def encode(payload: bytes) -> bytes:
    """The frame of a payload of at most MAX_PAYLOAD_BYTES."""
    return _HEADER.pack(MAGIC, len(payload), zlib.crc32(payload, len(payload))) + payload


def payload_of(frame: bytes) -> bytes:
    """Of a frame as `encode` makes it."""
    return frame[_HEADER.size :]


def decode(data: bytes) -> Iterator[Record | Damage]:
    """Everything in `data`, in order and without a gap."""
    position = 0
    while position < len(data):
        if record := _record(data, position):
            yield record
            position = record.end
            continue
        start = position
        position = data.find(MAGIC, start + 1)
        while position != -1 and _record(data, position) is None:
            position = data.find(MAGIC, position + 1)
        if position == -1:
            yield Damage(start, len(data), _torn(data[start:]))
            return
        yield Damage(start, position, False)


def _record(data: bytes, position: int) -> Record | None:
    begin = position + _HEADER.size
    if begin > len(data):
        return None
    magic, length, checksum = _HEADER.unpack_from(data, position)
    if magic != MAGIC or length > MAX_PAYLOAD_BYTES or begin + length > len(data):
        return None
    payload = data[begin : begin + length]
    return Record(payload, begin + length) if zlib.crc32(payload, length) == checksum else None


def _torn(rest: bytes) -> bool:
    if len(rest) < _HEADER.size:
        return rest.startswith(MAGIC) or MAGIC.startswith(rest)
    magic: bytes
    length: int
    magic, length, _ = _HEADER.unpack_from(rest)
    return magic == MAGIC and length <= MAX_PAYLOAD_BYTES and len(rest) < _HEADER.size + length
