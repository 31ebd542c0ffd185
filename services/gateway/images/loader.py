"""Brings the images of a request, all at once, and looks at them before the prompt is rendered.

Kept true: nothing is fetched for a model that sees no images, or for more of them than it takes; what comes is
bounded in bytes and pixels, alone and together; no image is decoded here, and long ones are looked at in a thread;
when one fails, the others are given up.
"""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from modelplane.tokenizer.v1 import tokenizer_pb2
from services.catalog import Catalog
from services.faults import InvalidRequest
from services.gateway.downloads import Downloader, DownloadSettings, Fetched, decode_data_url
from services.gateway.images.headers import HeaderError, read_header
from services.gateway.requests.messages import ImageReference

PARAM: Final = "messages"
# The last is no registered name, and in use all the same.
CONTENT_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/jpg")
# Decoding and hashing so much takes less than a millisecond.
INLINE_BYTES: Final = 256 * 1024
DIGEST_BYTES: Final = 16


class LoadedImage(msgspec.Struct, frozen=True):
    """An image file, and what the prompt depends on."""

    content: bytes
    seen: tokenizer_pb2.Image


class ImageLoader:
    """Loads for all requests. `max_bytes` is the bound on one request's images together."""

    def __init__(self, catalog: Catalog, downloader: Downloader, settings: DownloadSettings, max_bytes: int) -> None:
        self._catalog = catalog
        self._downloader = downloader
        self._settings = settings
        self._max_bytes = max_bytes

    async def load(self, model: str, references: Sequence[ImageReference]) -> list[LoadedImage]:
        """The images in their order. Raises InvalidRequest; for an unknown model it leaves that to others."""
        spec = self._catalog.get(model)
        if spec is None:
            return []
        if spec.vision is None:
            raise InvalidRequest(
                "unsupported_value",
                "Invalid content type. image_url is only supported by certain models.",
                param=PARAM,
            )
        if len(references) > spec.vision.max_images:
            raise InvalidRequest(
                "array_above_max_length",
                f"Too many images in request. Expected at most {spec.vision.max_images}, "
                f"but got {len(references)} instead.",
                param=PARAM,
            )
        bound = _Bound(self._max_bytes)
        tasks = [asyncio.ensure_future(self._load(image, spec.vision.max_pixels, bound)) for image in references]
        try:
            return list(await asyncio.gather(*tasks))
        except InvalidRequest as fault:
            # A download knows nothing of where its URL came from.
            fault.param = PARAM
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, reference: ImageReference, max_pixels: int, bound: "_Bound") -> LoadedImage:
        fetched = await self._fetch(reference.url)
        bound.add(len(fetched.content))
        if len(fetched.content) <= INLINE_BYTES:
            return look(fetched.content, reference.detail, max_pixels)
        return await asyncio.to_thread(look, fetched.content, reference.detail, max_pixels)

    async def _fetch(self, url: str) -> Fetched:
        most = self._settings.max_image_bytes
        if url[:5].lower() != "data:":
            return await self._downloader.fetch(
                url, max_bytes=most, timeout_s=self._settings.timeout_s, content_types=CONTENT_TYPES
            )
        if len(url) <= INLINE_BYTES:
            return decode_data_url(url, max_bytes=most, content_types=CONTENT_TYPES)
        return await asyncio.to_thread(decode_data_url, url, max_bytes=most, content_types=CONTENT_TYPES)


class _Bound:
    """How many bytes more may come."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    def add(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise InvalidRequest(
                "image_file_too_large", f"The images are larger than the allowed {self._max_bytes:,} bytes together."
            )


def look(content: bytes, detail: str, max_pixels: int) -> LoadedImage:
    """Pure. Raises InvalidRequest for what is no image, a broken one or one with too many pixels."""
    try:
        header = read_header(content)
    except HeaderError as error:
        raise InvalidRequest("image_parse_error", f"The image could not be read: {error}.") from error
    if header is None:
        raise InvalidRequest(
            "invalid_image_format",
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
            "['png', 'jpeg', 'gif', 'webp'].",
        )
    if header.width * header.height > max_pixels:
        raise InvalidRequest(
            "image_too_large",
            f"The image has {header.width} x {header.height} pixels, more than the allowed {max_pixels:,}.",
        )
    digest = blake2b(content, digest_size=DIGEST_BYTES).digest()
    seen = tokenizer_pb2.Image(width=header.width, height=header.height, detail=detail, digest=digest)
    return LoadedImage(content, seen)
