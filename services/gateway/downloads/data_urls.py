"""Decodes `data:` URLs, in which a client sends an image along.

Pure. Kept true: nothing is decoded before its size is known to be within the bound, so a URL cannot become more memory
than the request that brought it.
"""

import binascii
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote_to_bytes

from services.faults import InvalidRequest
from services.gateway.downloads.content import Fetched, empty, media_type, too_large, unsupported

# Of the part before the comma; a media type with parameters is much shorter.
HEAD_CHARACTERS: Final = 256
FORM: Final = "'data:<media type>;base64,<content>'"
_BASE64: Final = re.compile(r";[ ]*base64[ ]*$", re.IGNORECASE)


def decode_data_url(url: str, *, max_bytes: int, content_types: Collection[str]) -> Fetched:
    """The content of a `data:` URL, in base64 or percent form, if its media type is one of `content_types`.

    Raises InvalidRequest, never quoting the content.
    """
    scheme, _, rest = url[: HEAD_CHARACTERS + 1].partition(":")
    head, comma, _ = rest.partition(",")
    if scheme.lower() != "data" or not comma:
        raise InvalidRequest("invalid_image_url", f"Invalid image data URL: expected {FORM}.")
    content_type = media_type(head)
    if content_type not in content_types:
        raise unsupported(content_type, content_types)
    payload = url[len(scheme) + len(head) + 2 :]
    content = _base64(payload, max_bytes) if _BASE64.search(head) else _percent(payload, max_bytes)
    if not content:
        raise empty()
    return Fetched(content, content_type)


def _percent(payload: str, max_bytes: int) -> bytes:
    # An escape is three characters for one byte; other characters are at least a byte each.
    if len(payload) - 2 * payload.count("%") > max_bytes:
        raise too_large(max_bytes)
    content = unquote_to_bytes(payload)
    if len(content) > max_bytes:
        raise too_large(max_bytes)
    return content


def _base64(payload: str, max_bytes: int) -> bytes:
    """Decodes as browsers do: white space does not count and the padding may be missing."""
    # Four characters of what remains are three bytes. Line breaks and escapes may double that, no more.
    if len(payload) > 8 * (max_bytes // 3 + 1):
        raise too_large(max_bytes)
    try:
        encoded = unquote_to_bytes(payload) if "%" in payload else payload.encode("ascii")
        encoded = encoded.translate(None, b" \t\r\n\f").rstrip(b"=")
        if len(encoded) * 3 // 4 > max_bytes:
            raise too_large(max_bytes)
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidRequest("invalid_base64_image", "The image in the data URL is not valid base64.") from error
