"""A request's images on their way into vLLM: decoded with Pillow, scaled, and put where the prompt speaks of them.

Kept true: nothing of it happens on the event loop; an image is refused by its number of pixels before any of them is
decoded, and one at a time is; no organisation shares a cache entry of its image with another, as with its text.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import PIL.ExifTags
import PIL.Image

from modelplane.chat_inference.v1 import chat_inference_pb2
from modelplane.chat_inference.v1.chat_inference_pb2 import GenerateRequest, Sampling
from services.catalog import VisionSpec
from services.faults import InvalidRequest
from services.vision import Vision, read_vision

FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
DETAILS: Final = ("low", "high")


class Images:
    """Prepares images for one engine. Raises VisionError for a checkpoint whose images cannot be counted."""

    def __init__(self, checkpoint: Path, spec: VisionSpec) -> None:
        self._vision = read_vision(checkpoint)
        self._max_pixels = spec.max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def inputs(self, renderer: Any, request: GenerateRequest) -> dict[str, Any]:
        """What vLLM generates from; its `prompt_token_ids` have each image's tokens in the image's place.

        Raises InvalidRequest for an image that cannot be decoded, and vLLM's errors.
        """
        # The engine looks at all images of a prompt alike.
        low = all(image.detail == "low" for image in request.images)
        loop = asyncio.get_running_loop()
        decoded, marks = await loop.run_in_executor(self._thread, self._read, request, low)
        prompt = {
            "prompt_token_ids": list(request.prompt_token_ids),
            "multi_modal_data": {"image": decoded},
            "multi_modal_uuids": {"image": marks},
            "mm_processor_kwargs": {"size": {"longest_edge": self._vision.longest_edge(low)}},
        }
        if request.cache_salt:
            prompt["cache_salt"] = request.cache_salt
        inputs: dict[str, Any] = await renderer.process_for_engine_async(prompt, time.time())
        return inputs

    def warm_ups(self, placeholder: int) -> Iterator[GenerateRequest]:
        """A request for each way to look at an image: the first of a kind takes seconds."""
        edge = self._vision.edge
        file = BytesIO()
        PIL.Image.new("RGB", (edge, edge)).save(file, "PNG")
        for detail in DETAILS:
            image = chat_inference_pb2.Image(content=file.getvalue(), detail=detail)
            yield GenerateRequest(
                request_id="warm-up",
                prompt_token_ids=[1, placeholder, 1],
                sampling=Sampling(n=1, max_output_tokens=2),
                images=[image],
            )

    def _read(self, request: GenerateRequest, low: bool) -> tuple[list[PIL.Image.Image], list[str]]:
        """The pictures, and what vLLM knows each one by in place of a hash of its pixels."""
        contents = [image.content for image in request.images]
        try:
            decoded = [decode(content, self._vision, low, self._max_pixels) for content in contents]
        except InvalidRequest:
            raise
        except Exception as error:  # a decoder may fail in any way on broken bytes
            raise InvalidRequest("image_parse_error", "The image could not be decoded.", param="messages") from error
        key = blake2b(request.cache_salt.encode(), digest_size=16).digest()
        return decoded, [blake2b(content, key=key, digest_size=16).hexdigest() for content in contents]


def decode(content: bytes, vision: Vision, low: bool, max_pixels: int) -> PIL.Image.Image:
    """An image file's first picture in RGB, upright, on white where it is transparent, and no larger than it is looked
    at. Raises InvalidRequest for one with too many pixels, anything else for a broken one.
    """
    with PIL.Image.open(BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InvalidRequest(
                "image_too_large",
                f"The image has {width} x {height} pixels, more than the allowed {max_pixels:,}.",
                param="messages",
            )
        scaled = vision.scaled(width, height, low)
        smaller = scaled[0] * scaled[1] < width * height
        if smaller:
            # A JPEG's decoder leaves out what will not be seen.
            image.draft("RGB", scaled)
        picture = _on_white(image)
        if smaller:
            picture = picture.resize(scaled, PIL.Image.Resampling.LANCZOS)
        if image.format in ("JPEG", "MPO"):
            picture = _upright(image.info.get("exif"), picture)
        # Or vLLM would turn it again.
        picture.info.clear()
        return picture


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = PIL.Image.new("RGBA", coloured.size, "white")
    white.alpha_composite(coloured)
    return white.convert("RGB")


TURNS: Final[Mapping[int, PIL.Image.Transpose]] = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


def _upright(tags: bytes | None, picture: PIL.Image.Image) -> PIL.Image.Image:
    """Turned as the camera was held, by its Exif tags."""
    exif = PIL.Image.Exif()
    if tags:
        exif.load(tags)
    turn = TURNS.get(exif.get(PIL.ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)
