"""Images in prompts: how many tokens each one takes, and what of them the prefix of a prompt depends on.

A prompt has one token for an image, in whose place the engine puts as many as the image's tiles need. Kept true: the
count made here from an image's size is the engine's, to the token.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from modelplane.tokenizer.v1 import tokenizer_pb2
from services.faults import InvalidRequest
from services.tokenizer.segments import WORD_BYTES, Encoded
from services.tokenizer.templates import ChatTemplate
from services.vision import Vision, VisionError

IMAGE = "<image>"
# Stands around every tile, and before the small picture of the whole.
AROUND = "<fake_token_around_image>"
WHOLE = "<global-img>"


class CountedImage(NamedTuple):
    """An image of a prompt."""

    tokens: int
    """That stand in its place, at least 1."""

    placeholder: int
    """The token that stands for it before."""

    mark: bytes
    """What tells it from other images."""


class ImageCounter:
    """How one model's engine writes images. Raises VisionError where its tokenizer or its template cannot."""

    def __init__(self, vision: Vision, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self._vision = vision
        self._tokenizer = tokenizer
        # By rows and columns; there are few that a checkpoint's sizes admit.
        self._frames: dict[tuple[int, int], int] = {}
        placeholder = tokenizer.token_to_id(IMAGE)
        if placeholder is None:
            raise VisionError(f"the tokenizer has no token {IMAGE}")
        self.placeholder: int = placeholder
        shown = "".join(template.render([{"role": "user", "content": [{"type": "image"}]}]))
        if shown.count(IMAGE) != 1:
            raise VisionError("the chat template does not show images")

    def tokens(self, width: int, height: int, low: bool) -> int:
        """Tokens of an image of so many pixels."""
        rows, columns = self._vision.tiles(width, height, low)
        frame = self._frames.get((rows, columns))
        if frame is None:
            frame = self._frames[rows, columns] = self._frame(rows, columns)
        return frame + (rows * columns + 1) * self._vision.tile_tokens

    def _frame(self, rows: int, columns: int) -> int:
        """Tokens between the tiles, each of which one token stands for here."""
        lines = (
            "".join(f"{AROUND}<row_{row}_col_{column}>{IMAGE}" for column in range(1, columns + 1))
            for row in range(1, rows + 1)
        )
        text = "".join(f"{line}\n" for line in lines)
        text += f"\n{AROUND}{WHOLE}{IMAGE}{AROUND}" if rows else f"{AROUND}{WHOLE}{IMAGE}{AROUND}"
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return len(ids) - rows * columns - 1


def counted(counter: ImageCounter | None, messages: Iterable[tokenizer_pb2.Message]) -> Sequence[CountedImage]:
    """The images of a conversation, in order. Raises unsupported_value for a model that sees none."""
    images = [part.image for message in messages for part in message.parts if part.HasField("image")]
    if not images:
        return ()
    if counter is None:
        raise InvalidRequest(
            "unsupported_value",
            "Invalid content type. image_url is only supported by certain models.",
            param="messages",
        )
    # The engine looks at all images of a prompt alike.
    low = all(image.detail == "low" for image in images)
    return [
        CountedImage(
            counter.tokens(max(image.width, 1), max(image.height, 1), low),
            counter.placeholder,
            image.digest + bytes((low,)),
        )
        for image in images
    ]


def prefix(prompt: Encoded, images: Sequence[CountedImage], length: int) -> bytes:
    """The first `length` tokens of a prompt, its images in their places."""
    if not images:
        return prompt.words[: length * WORD_BYTES]
    ids = array("I", prompt.words)
    pieces = []
    at = 0
    for image in images:
        end = ids.index(image.placeholder, at)
        pieces.append(ids[at : min(end, at + length)].tobytes())
        length -= end - at
        if length <= 0:
            return b"".join(pieces)
        pieces.append(image.mark)
        length -= image.tokens
        at = end + 1
        if length <= 0:
            return b"".join(pieces)
    return b"".join((*pieces, ids[at : at + length].tobytes()))
