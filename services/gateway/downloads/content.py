"""What a URL brought, and the faults of bringing it, in OpenAI's words.

Kept true: a message says nothing about what is behind a URL that the client did not send itself. A closed address, a
name that does not exist, a port where nobody listens and a bad certificate are one text.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from services.faults import InvalidRequest

# More of a URL than anyone reads.
SHOWN_CHARACTERS: Final = 200


class Fetched(msgspec.Struct, frozen=True):
    """The content and its media type, in lower case and without parameters."""

    content: bytes
    content_type: str


def media_type(text: str) -> str:
    """The media type of a Content-Type, without its parameters."""
    return text.partition(";")[0].strip().lower()


def shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def invalid_url(url: str, why: str) -> InvalidRequest:
    return InvalidRequest("invalid_image_url", f"Invalid image URL: {why}. Got '{shown(url)}'.")


def failed(url: str) -> InvalidRequest:
    return InvalidRequest("invalid_image_url", f"Failed to download image from {shown(url)}.")


def timed_out(url: str) -> InvalidRequest:
    return InvalidRequest("invalid_image_url", f"Timeout while downloading image from {shown(url)}.")


def too_large(max_bytes: int) -> InvalidRequest:
    return InvalidRequest("image_file_too_large", f"The image is larger than the allowed {max_bytes:,} bytes.")


def empty() -> InvalidRequest:
    return InvalidRequest("empty_image_file", "The image is empty.")


def unsupported(content_type: str, allowed: Collection[str]) -> InvalidRequest:
    return InvalidRequest(
        "unsupported_image_media_type",
        f"Unsupported image type '{shown(content_type)}'. Supported are: {', '.join(sorted(allowed))}.",
    )
