"""A model that sees, through the whole platform: the SDK sends an image, and pays for what the engine read of it."""

import base64
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from openai import BadRequestError

from services.chat_inference.engines import checkpoints
from services.settings import Environment, PlatformSettings
from tests.journeys.platform_process import PlatformProcess, running_platform
from tests.services.chat_inference.engines.vlm import TILE_TOKENS, write_vlm

MODEL = "tiny-vlm"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # Of the libraries that write the checkpoint.
    pytest.mark.filterwarnings("ignore"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder, and the port on loopback that serves it."""
    folder = tmp_path_factory.mktemp("pictures")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, pictures: tuple[Path, int]) -> Iterator[PlatformProcess]:
    directory = tmp_path_factory.mktemp("vision")
    cache = Environment.capture().group(PlatformSettings).cache_directory()
    write_vlm(directory / "tiny", checkpoints.prepare(cache, print))
    config = directory / "modelplane.toml"
    config.write_text(
        f'[[models]]\nname = "{MODEL}"\ncheckpoint = "{directory / "tiny"}"\nslots = 8\nfree = true\n'
        "vision = { max_images = 2 }\n"
    )
    variables = {
        "MODELPLANE_CONFIG": str(config),
        "MODELPLANE_DOWNLOADS_ALLOW_HTTP": "true",
        "MODELPLANE_DOWNLOADS_ALLOW_PRIVATE_HOSTS": "127.0.0.1",
        "MODELPLANE_DOWNLOADS_PORTS": str(pictures[1]),
    }
    with running_platform(directory / "home", variables) as platform:
        yield platform


def picture(width: int, height: int, form: str) -> bytes:
    file = BytesIO()
    PIL.Image.effect_noise((width, height), 80).convert("RGB").save(file, form)
    return file.getvalue()


def asking(*urls: str, detail: str = "auto") -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url, "detail": detail}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *images]}]


def test_images_by_url_and_in_the_request(platform: PlatformProcess, pictures: tuple[Path, int]) -> None:
    folder, port = pictures
    (folder / "a.jpg").write_bytes(picture(640, 480, "JPEG"))
    by_url = f"http://127.0.0.1:{port}/a.jpg"
    inside = f"data:image/png;base64,{base64.b64encode(picture(300, 200, 'PNG')).decode()}"
    sdk = platform.sdk()

    def seen(*urls: str, detail: str = "auto") -> tuple[int, int]:
        answer = sdk.chat.completions.create(
            model=MODEL, messages=asking(*urls, detail=detail), max_completion_tokens=5
        )
        assert answer.usage and answer.usage.prompt_tokens_details and answer.usage.completion_tokens > 0
        extra = answer.usage.prompt_tokens_details.to_dict()
        return answer.usage.prompt_tokens, int(str(extra.get("image_tokens", 0)))

    words = seen()[0]
    for urls in ((by_url,), (inside,), (by_url, inside)):
        prompt, images = seen(*urls)
        assert prompt == words + images
        assert images == len(urls) * (12 * (TILE_TOKENS + 2) + 3 + TILE_TOKENS + 3)
        assert seen(*urls, detail="low") == (words + len(urls) * (TILE_TOKENS + 3), len(urls) * (TILE_TOKENS + 3))


def test_refusals(platform: PlatformProcess, pictures: tuple[Path, int]) -> None:
    sdk = platform.sdk()
    broken = f"data:image/png;base64,{base64.b64encode(picture(300, 200, 'PNG')[:-400]).decode()}"
    for urls, code in (
        (["http://localhost/a.png"], "invalid_image_url"),
        (["http://169.254.169.254/latest/meta-data/"], "invalid_image_url"),
        ([f"http://127.0.0.1:{pictures[1]}/missing.png"], "invalid_image_url"),
        ([broken], "image_parse_error"),
        ([broken] * 3, "array_above_max_length"),
    ):
        with pytest.raises(BadRequestError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=asking(*urls), max_completion_tokens=5)
        assert caught.value.code == code
        assert caught.value.param == "messages"
